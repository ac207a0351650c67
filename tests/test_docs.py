"""Every example in the docs, the README and the docstrings is run."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import fedpace

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_the_examples_of_a_page_give_what_it_says(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    failed, _ = doctest.testfile(str(page), module_relative=False, optionflags=OPTIONS)
    assert failed == 0


MODULES = [
    module.name
    for module in pkgutil.walk_packages(fedpace.__path__, "fedpace.")
    # doctest would touch every name that the command line imports, deprecated ones too.
    if not module.name.endswith(("__main__", "cli"))
]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_give_what_it_says(name):
    if name.startswith(("fedpace.lora", "fedpace.experiment.build", "fedpace.experiment.run")):
        pytest.importorskip("torch")
    if name.startswith(("fedpace.deploy", "fedpace.engines.flower.engine")):
        pytest.importorskip("flwr")
    failed, _ = doctest.testmod(importlib.import_module(name), optionflags=OPTIONS)
    assert failed == 0


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for link in re.findall(r"\[[^\]]+\]\(([\w./-]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name}: {link}"
