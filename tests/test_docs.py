"""The docs hold: examples are run, links lead somewhere, commands and keys exist."""

import doctest
import importlib
import importlib.util
import pkgutil
import re
import shlex
import warnings
from pathlib import Path

import pytest

import fedpace
from fedpace.experiment.config import Experiment

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
RUN_ELSEWHERE = {"extending.md": "tests/test_extending.py"}
"""Pages whose Python blocks are run by a test of their own."""

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)


def blocks(page, language):
    """Return the fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.M | re.S)


def examples(text):
    return doctest.DocTestParser().get_examples(text)


@pytest.mark.parametrize("page", [p for p in PAGES if ">>>" in p.read_text()], ids=lambda p: p.name)
def test_the_examples_of_a_page_give_what_it_says(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    failed, tried = doctest.testfile(str(page), module_relative=False, optionflags=OPTIONS)
    assert tried == page.read_text().count(">>> ")
    assert failed == 0


@each_page
def test_python_on_a_page_is_an_example_that_is_run(page):
    if page.name in RUN_ELSEWHERE:
        assert page.name in (ROOT / RUN_ELSEWHERE[page.name]).read_text()
        return
    for block in blocks(page, "python"):
        assert examples(block), f"{page.name} shows Python that no test runs:\n{block}"


def test_what_a_bias_does_to_three_phones_is_what_their_plan_says():
    from fedpace.experiment.scenario import load_scenario, plan_scenario, scenario_network

    text = " ".join((ROOT / "docs" / "methods.md").read_text().split())
    said = r"`max_bias` = (\S+) allows it, three phones with (\S+) % of the data count for (\S+) %"
    bias, data, counts = re.search(said, text).groups()
    asked = load_scenario(ROOT / "examples" / "devices.toml", [f"planner.max_bias={bias}"])
    network = scenario_network(asked)
    made = plan_scenario(asked, network)
    phones = ["phone" in str(name) for name in made.client_id]
    assert sum(phones) == 3
    weight = network.clients.data_weight
    assert data == f"{100 * weight[phones].sum() / weight.sum():.0f}"
    assert counts == f"{100 * made.decision.aggregation_weight[phones].sum():.1f}"


def _source(name):
    found = importlib.util.find_spec(name)
    return Path(found.origin).read_text()


MODULES = [m.name for m in pkgutil.walk_packages(fedpace.__path__, "fedpace.")]
NEEDS = {"fedpace.lora": "torch", "fedpace.experiment": "torch", "fedpace.deploy": "flwr",
         "fedpace.engines.flower": "flwr", "fedpace.testbed": "flwr"}  # fmt: skip


@pytest.mark.parametrize("name", [name for name in MODULES if ">>>" in _source(name)])
def test_the_examples_of_a_module_give_what_it_says(name):
    for room, package in NEEDS.items():
        if name.startswith(room):
            pytest.importorskip(package)
    failed, tried = doctest.testmod(importlib.import_module(name), optionflags=OPTIONS)
    assert tried > 0
    assert failed == 0


def anchors(page):
    """Return the anchors that a forge makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", h).lower() for h in headings)
    return {re.sub(r"[^\w\- ]", "", h).strip().replace(" ", "-") for h in plain}


@each_page
def test_links_between_pages_lead_somewhere(page):
    for link, anchor in re.findall(r"\[[^\]]*\]\(([\w./-]*)(?:#([^)]*))?\)", page.read_text()):
        target = (page.parent / link) if link else page
        assert target.exists(), f"{page.name}: {link}"
        if anchor:
            assert anchor in anchors(target), f"{page.name}: {link}#{anchor}"


def test_an_anchor_is_the_heading_as_forges_write_it(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Bytes, and `how many`\n\n## [A link](x.md) to it\n")
    assert anchors(page) == {"bytes-and-how-many", "a-link-to-it"}


def commands(page):
    """Return every command line of FedPace in a page's blocks, continuation lines joined."""
    text = page.read_text()
    lines = "\n".join(re.findall(r"^(?: {4}|\$ )(.*)$", text, re.M))
    for language in ("", "sh", "bash", "console", "text"):
        lines += "\n" + "\n".join(blocks(page, language))
    lines = re.sub(r"\\\n\s*", " ", lines)
    found = re.findall(r"^\s*(?:\$ )?(?:[\w./-]+/)?fedpace ((?!<)[a-z-]+\b.*)$", lines, re.M)
    return [shlex.split(line, comments=True) for line in found]


@pytest.fixture(scope="module")
def command_line():
    """The whole command line as click has it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # typer asks click for old names
        from typer.main import get_command

        from fedpace.cli import app
    return get_command(app)


@each_page
def test_commands_on_a_page_exist_with_their_options(page, command_line):
    for words in commands(page):
        command = command_line
        while words and hasattr(command, "commands"):
            name, *words = words
            assert name in command.commands, f"{page.name}: fedpace ... {name}"
            command = command.commands[name]
        known = {option for parameter in command.params for option in parameter.opts}
        for word in words:
            if word.startswith("--"):
                assert word.split("=")[0] in known, f"{page.name}: {word} of {command.name}"


def test_commands_on_pages_are_found():
    found = [words[0] for words in commands(ROOT / "README.md")]
    assert {"run", "plan", "serve", "join", "doctor"} <= set(found)


@each_page
def test_keys_that_a_page_sets_exist(page):
    for section, key in re.findall(r"--set '?(\w+)\.(\w+)=", page.read_text()):
        if (section, key) == ("section", "key"):
            continue  # the form itself
        fields = Experiment.model_fields
        assert section in fields, f"{page.name}: {section}"
        assert key in fields[section].annotation.model_fields, f"{page.name}: {section}.{key}"
