"""The README's first screen is true: the sample plan is what the command prints today."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()

PAGES = (
    "evidence", "whole-model", "language-model", "regimes", "equal-share", "equal-finish",
)  # fmt: skip
"""Suites whose results have a page."""


def block(name):
    """Return the indented block between two marks, without its indentation."""
    text = README.split(f"<!-- {name}: begin -->")[1].split(f"<!-- {name}: end -->")[0]
    return [line.removeprefix("    ") for line in text.strip("\n").splitlines()]


def test_the_devices_are_those_of_the_example():
    assert block("devices") == (ROOT / "examples" / "devices.csv").read_text().splitlines()


def test_the_plan_is_what_the_command_prints():
    command = [sys.executable, "-m", "fedpace", "plan", "examples/devices.toml"]
    wide = {**os.environ, "COLUMNS": "110"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=wide)
    printed = [line.rstrip() for line in done.stdout.splitlines()]
    assert block("plan") == printed, "paste into README.md:\n" + done.stdout


def test_headline_and_page_are_made_of_the_evidence():
    """Where there are results of it: README.md and docs/results.md say what the lines say."""
    from fedpace.bench.page import in_order
    from fedpace.bench.paired_headline import headline
    from fedpace.bench.paired_page import page_text
    from fedpace.bench.paired_tables import results_of
    from fedpace.bench.results import read_results
    from fedpace.bench.suite import Suite
    from fedpace.experiment.parsing import parse
    from fedpace.experiment.toml_files import read_toml

    pages = {}
    for name in PAGES:
        out = "results" if name == "evidence" else name
        named, described = f"benchmarks/results/{name}.jsonl", f"benchmarks/suites/{name}.toml"
        lines = read_results(ROOT / named)
        suite = parse(Suite, read_toml(ROOT / described), described)
        command = f"fedpace bench page {named} --out docs/{out}.md --suite {described}"
        page = (ROOT / "docs" / f"{out}.md").read_text()
        assert page == page_text(lines, command=command, suite=suite), f"run {command}"
        pages[name] = page
        if name == "evidence":
            table = headline(results_of(in_order(lines, suite), suite))
    for figure in re.findall(r"\d\.\d\d(?: of our time| \(\d\.\d\d–\d\.\d\d\))", README):
        assert any(figure in page for page in pages.values()), (
            f"no page says anything of {figure}; correct README.md"
        )
    assert "<!-- evidence: begin -->" in README, "mark where the table of the evidence stands"
    assert "\n".join(block("evidence")) == table, "paste into README.md:\n" + table


def test_every_page_is_reached_from_the_readme():
    pages = {path.name for path in (ROOT / "docs").glob("*.md")}
    linked = set(re.findall(r"\(docs/([\w-]+\.md)", README))
    through = {name for name in linked for name in re.findall(
        r"\(([\w-]+\.md)", (ROOT / "docs" / name).read_text())}  # fmt: skip
    assert pages <= linked | through
