"""docs/dependencies.md against pyproject.toml and constraints.txt; the licence check."""

import importlib.util
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
NOT_INSTALLED = {"hatchling", "mlflow-skinny"}
"""By `make`: the one builds the wheel, the other is in no extra that it installs."""


def named(text):
    return re.sub(r"[-_.]+", "-", re.match(r"[A-Za-z0-9._-]+", text)[0]).lower()


def declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"].values()
    lists = [project["project"]["dependencies"], project["build-system"]["requires"], *extras]
    return {named(entry) for entries in lists for entry in entries} - {"fedpace"}


def test_each_dependency_stands_in_the_page_and_nothing_else_does():
    page = (ROOT / "docs" / "dependencies.md").read_text()
    assert set(re.findall(r"^\| `([^`]+)` \|", page, re.M)) == declared()


def test_each_is_pinned():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {named(line) for line in lines if "==" in line}
    assert declared() - pinned == NOT_INSTALLED


def licences():
    spec = importlib.util.spec_from_file_location("licences", ROOT / "packaging" / "licences.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_licences_that_bind_a_whole_program_or_are_not_stated_are_refused():
    given = {
        "one": "MIT", "two": "GPL-3.0-or-later", "three": "", "four": "LGPL-2.1",
        "five": "GNU Affero General Public License v3", "six": "Apache-2.0 WITH LLVM-exception",
        "seven": "Proprietary",
    }  # fmt: skip
    assert [line.partition(":")[0] for line in licences().faults(given)] == [
        "five", "seven", "three", "two",
    ]  # fmt: skip


def test_all_that_is_installed_may_be_passed_on():
    check, found = licences(), {}
    check.installed("fedpace", found)
    assert len(found) > 5 and check.faults(found) == []
