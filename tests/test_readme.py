"""The README's first screen is true: the sample plan is what the command prints today."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


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


def test_every_page_is_reached_from_the_readme():
    pages = {path.name for path in (ROOT / "docs").glob("*.md")}
    linked = set(re.findall(r"\(docs/([\w-]+\.md)", README))
    through = {name for name in linked for name in re.findall(
        r"\(([\w-]+\.md)", (ROOT / "docs" / name).read_text())}  # fmt: skip
    assert pages <= linked | through
