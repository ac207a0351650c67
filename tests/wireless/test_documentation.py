import doctest
import importlib
import re
from pathlib import Path

import pytest

from fedpace.wireless.population import SCENARIOS

PAGE = Path(__file__).parents[2] / "docs" / "clock.md"


@pytest.mark.parametrize(
    "module", ["bandwidth", "channel", "clients_file", "latency", "population", "shannon"]
)
def test_the_examples_in_the_docstrings_are_true(module):
    failed, _ = doctest.testmod(importlib.import_module(f"fedpace.wireless.{module}"))
    assert failed == 0


def test_the_examples_on_the_page_are_true():
    failed, attempted = doctest.testfile(str(PAGE), module_relative=False)
    assert attempted > 5 and failed == 0


def test_the_table_of_presets_on_the_page_is_the_one_in_the_code():
    rows = re.findall(r"^\| `([\w-]+)` \|(.*)\|$", PAGE.read_text(), flags=re.MULTILINE)
    stated = {name: [cell.strip() for cell in cells.split("|")] for name, cells in rows}
    actual = {}
    for name, s in SCENARIOS.items():
        cell = [f"{s.cell_radius_km:g}", f"{s.shadowing_db:g}"]
        ratio = s.upload_compute_ratio
        actual[name] = [
            f"{s.bandwidth_hz / 1e6:g}",
            *(cell if s.uplink_bps is None else ["none", "none"]),
            f"{s.step_spread:g}",
            "as measured" if ratio is None else f"{ratio:g}",
        ]
    assert stated == actual
