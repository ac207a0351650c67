"""Other readings of the same curves, against times worked out by hand."""

import pytest

from fedpace.bench.paired_readings import only, readings, reread
from fedpace.bench.paired_tables import results_of

GOALS = ("accuracy>=0.4", "accuracy>=0.6")


def line(method, kind, curve, times):
    return {
        "suite": "s", "task": "t", "network": "n", "rule": "r", "method": method, "kind": kind,
        "seed": 0, "target": GOALS[-1], "seconds": times[-1], "end_seconds": curve[-1][0],
        "predicted_gain": {}, "rounds": 3, "curve": curve,
        "targets": dict(zip(GOALS, times, strict=True)),
    }  # fmt: skip


# Averaged 0.2, 0.4, 0.6: 20 and 30 s. Single: 0.2, 0.6, 0.6: 15 and 20 s.
OURS = line("fast", "ours", [[10.0, 0.2], [20.0, 0.6], [30.0, 0.6]], (20.0, 30.0))
# Averaged 0.2, 0.3, 0.6. Single: 40 and 50 s.
THEIRS = line("slow", "sampler", [[20.0, 0.2], [40.0, 0.4], [60.0, 0.8]], (46.0, 60.0))


def test_single_evaluations_reach_a_target_before_their_mean():
    assert list(reread(OURS)["targets"].values()) == pytest.approx([15.0, 20.0])
    assert list(reread(THEIRS)["targets"].values()) == pytest.approx([40.0, 50.0])
    assert OURS["targets"][GOALS[0]] == 20.0


def test_the_table_has_the_ratio_of_each_reading():
    assert only(0)(OURS)["targets"] == {GOALS[0]: 20.0}
    text = readings(results_of([OURS, THEIRS]))
    # sqrt(2.3 * 2), sqrt(40/15 * 50/20), 2.3, 2.
    for name, ratio in [
        ("as above", "2.14"),
        ("not averaged over neighbours", "2.58"),
        ("the easiest target alone", "2.30"),
        ("the hardest target alone", "2.00"),
    ]:
        assert f"| {name} | {ratio} (" in text
    assert "evaluated 3 times in the median" in text


def test_a_target_that_one_of_both_missed_may_be_left_out():
    late = {**THEIRS, "seconds": None, "end_seconds": 300.0,
            "targets": {GOALS[0]: 46.0, GOALS[1]: None}}  # fmt: skip
    text = readings(results_of([OURS, late]))
    assert "| as above | > 4.80 (" in text  # sqrt(2.3 * 10)
    assert "| without targets that one of both missed | 2.30 (" in text
