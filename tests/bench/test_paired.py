"""Paired ratios and their intervals against what is worked out by hand, and against SciPy."""

import numpy as np
import pytest
from scipy.stats import bootstrap

from fedpace.bench.paired import Pairs, best_of, chosen_by_plan, geometric_mean, pairs, runs_of


def run(seed, seconds, *, rounds=10, end=100.0, gain=None):
    return {
        "seed": seed, "seconds": seconds, "end_seconds": end if seconds is None else seconds,
        "rounds": rounds, "predicted_gain": {} if gain is None else {"synchronous": gain},
    }  # fmt: skip


def runs(*seconds, **more):
    return {seed: run(seed, s, **more) for seed, s in enumerate(seconds)}


def test_ratios_are_of_equal_seeds():
    theirs = runs(20.0, 40.0, 80.0)
    found = pairs({0: run(0, 10.0), 2: run(2, 10.0), 7: run(7, 1.0)}, theirs)
    assert np.exp(found.log_ratio) == pytest.approx([2.0, 8.0])
    assert geometric_mean([found]).mean == pytest.approx(4.0)
    by_rounds = pairs(runs(1.0, rounds=10), runs(2.0, rounds=15), "rounds")
    assert np.exp(by_rounds.log_ratio) == pytest.approx([1.5])


def test_a_missed_target_makes_a_bound_and_two_make_no_pair():
    lower = pairs(runs(10.0, 10.0), runs(20.0, None))
    assert (lower.at_least, lower.at_most) == (True, False)
    assert str(geometric_mean([lower])).startswith("> 4.47 (")  # sqrt(2 * 10)
    upper = pairs(runs(10.0, None), runs(20.0, 50.0))
    assert (upper.at_least, upper.at_most) == (False, True)
    assert pairs(runs(None), runs(None)) is None and pairs({}, runs(1.0)) is None


def test_the_interval_is_that_of_scipys_percentile_bootstrap():
    values = np.log([1.1, 1.4, 0.9, 2.0, 1.7, 1.2, 1.3, 0.8])
    found = geometric_mean([Pairs(values, at_least=False, at_most=False)])
    theirs = bootstrap(
        (values,), np.mean, confidence_level=0.9, method="percentile", n_resamples=20_000, rng=1
    ).confidence_interval
    assert np.log([found.low, found.high]) == pytest.approx([theirs.low, theirs.high], abs=0.01)


def test_over_settings_seeds_are_drawn_anew_within_each():
    # Two settings whose seeds agree have no spread, however far apart the settings are.
    calm = [Pairs(np.log([r, r]), at_least=False, at_most=False) for r in (1.0, 4.0)]
    found = geometric_mean(calm)
    assert (found.mean, found.low, found.high) == pytest.approx((2.0, 2.0, 2.0))


def test_the_best_other_is_the_fastest_of_those_that_arrive_most_often():
    ours = runs(10.0, 10.0)
    others = {"slow": runs(30.0, 30.0), "fast": runs(20.0, 22.0), "rare": runs(5.0, None)}
    assert best_of(ours, others, "seconds") == "fast"
    assert best_of(ours, {"absent": {}}, "seconds") is None


def test_the_planner_takes_the_schedule_that_it_predicts_to_be_faster():
    ours = {0: run(0, 10.0, gain=1.2), 1: run(1, 30.0, gain=0.9), 2: run(2, 1.0, gain=2.0)}
    chosen = chosen_by_plan(ours, runs(20.0, 20.0), "synchronous")
    assert {seed: line["seconds"] for seed, line in chosen.items()} == {0: 10.0, 1: 20.0}


def test_runs_are_found_by_setting_and_method():
    line = {**run(3, 1.0), "task": "t", "network": "n", "method": "m"}
    assert runs_of([line, {**line, "method": "o"}], ("t", "n"), "m") == {3: line}
