"""Speed-ups against tables worked out by hand."""

import numpy as np
import pytest

from fedpace.bench.comparison import prediction_errors, rivals, speedup, table, time_of
from fedpace.bench.page import write_page
from fedpace.core.errors import InputError


def line(
    method, seed, seconds, *, rule="equal-finish", network="balanced", kind="sampler", end=100
):
    return {
        "suite": "s", "task": "t", "network": network, "rule": rule, "method": method,
        "kind": kind, "seed": seed, "target": "accuracy>=0.8", "seconds": seconds,
        "end_seconds": end if seconds is None else seconds, "predicted_seconds": 50.0,
        "predicted_gain": {"uniform": 1.4, "weighted": 1.1},
        "curve": [[1.0, 0.2], [2.0, 0.5]],
    }  # fmt: skip


LINES = [
    *(line("ours", seed, s, kind="ours") for seed, s in enumerate([10.0, 30.0, 20.0])),
    *(line("uniform", seed, s) for seed, s in enumerate([50.0, None, 40.0])),
    *(line("full", seed, s) for seed, s in enumerate([None, None, 90.0])),
    *(line("weighted", seed, s) for seed, s in enumerate([10.0, 18.0, 19.0])),
    *(line("uniform", seed, 80.0, rule="equal-share") for seed in range(3)),
]
HERE = ("t", "balanced")


def test_the_median_counts_a_run_that_never_arrives_as_the_latest():
    uniform = time_of(LINES, HERE, "uniform", "equal-finish")
    assert (uniform.seconds, uniform.reached, uniform.low, uniform.high) == (50, True, 40, np.inf)
    assert (uniform.runs, uniform.runs_reached) == (3, 2)
    full = time_of(LINES, HERE, "full", "equal-finish")
    assert (full.seconds, full.reached) == (100, False)
    assert time_of(LINES, HERE, "oort", "equal-finish") is None


def test_speedups_are_ratios_of_medians_or_their_lower_bounds():
    found = table(LINES, "ours", ["uniform", "full", "weighted"], "equal-finish")[HERE]
    assert {name: (s.ratio, s.exact) for name, s in found.items()} == {
        "uniform": (2.5, True), "full": (5.0, False), "weighted": (0.9, True),
    }  # fmt: skip
    share = table(LINES, "ours", ["uniform", "weighted"], "equal-share")[HERE]
    assert share["uniform"].ratio == 4.0 and share["weighted"] is None


def test_where_ours_does_not_arrive_there_is_no_speedup():
    ours = time_of(LINES, HERE, "full", "equal-finish")
    assert speedup(ours, time_of(LINES, HERE, "uniform", "equal-finish")) is None


def test_prediction_errors_are_relative():
    assert prediction_errors([line("a", 0, 40.0), line("a", 0, 75.0)]) == pytest.approx([0.2, 0.5])
    assert prediction_errors([{**line("a", 0, 40.0), "predicted_seconds": None}]) == []


def test_the_page_names_what_was_lost(tmp_path):
    out = tmp_path / "results.md"
    files = write_page(LINES, out, command="cmd")
    text = out.read_text()
    assert all(file.exists() for file in files)
    assert "weighted needs 0.90 of our time (equal finish)" in text
    assert "| t, balanced | 2.50 | > 5.00 | 0.90 |" in text
    assert "50 (40–…), 2/3" in text


def test_the_page_says_where_ours_never_arrived_and_not_where_others_are_missing(tmp_path):
    lost = [line("ours", seed, None, kind="ours", network="far") for seed in range(3)]
    alone = [line("ours", seed, 5.0, kind="ours", network="near") for seed in range(3)]
    write_page([*LINES, *lost, *alone], tmp_path / "r.md", command="cmd")
    text = (tmp_path / "r.md").read_text()
    assert "t, far: ours did not reach the target" in text
    assert "t, near: ours" not in text and "t, balanced: ours" not in text


def test_a_page_needs_one_method_of_ours(tmp_path):
    with pytest.raises(InputError, match="no method of kind 'ours'"):
        write_page([line("uniform", 0, 1.0)], tmp_path / "r.md", command="cmd")
    assert rivals(LINES, ["sampler"]) == ["uniform", "full", "weighted"]
