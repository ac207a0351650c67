"""A results file that a kill, or a hand, has left."""

import json

import pytest

from bench.test_paired_page import LINES
from fedpace.bench.results import append, read_results
from fedpace.core.errors import InputError


def test_a_line_that_a_kill_cut_off_is_made_again_and_spoils_no_other(tmp_path):
    path = tmp_path / "s.jsonl"
    for line in LINES[:3]:
        append(path, line)
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    assert read_results(path) == LINES[:2]
    append(path, LINES[2])
    assert path.read_bytes() == whole and read_results(path) == LINES[:3]


@pytest.mark.parametrize("text", ["{", "[]", "3", json.dumps({"suite": "s"}), ""])
def test_another_damaged_line_is_named(tmp_path, text):
    path = tmp_path / "s.jsonl"
    good = json.dumps(LINES[0])
    path.write_text(f"{good}\n{text}\n{good}\n")
    with pytest.raises(InputError, match=r"s\.jsonl line 2 is no result of a suite; restore it"):
        read_results(path)


def test_a_folder_is_no_results_file(tmp_path):
    with pytest.raises(InputError, match="is a folder; give the file"):
        read_results(tmp_path)
    assert read_results(tmp_path / "none.jsonl") == []
