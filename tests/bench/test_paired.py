"""Paired ratios and their intervals against what is worked out by hand, and against SciPy."""

import numpy as np
import pytest
from scipy.stats import bootstrap

from fedpace.bench.paired import (
    Pairs,
    best_of,
    chosen_by_plan,
    geometric_mean,
    pairs,
    power,
    runs_of,
    tail_of,
)


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


def several(seed, *seconds, end=100.0):
    """A run with targets a, b, ..., the last the hardest."""
    targets = dict(zip("abc", seconds, strict=False))
    return {"seed": seed, "seconds": seconds[-1], "end_seconds": end, "targets": targets}


def test_a_seeds_figure_is_the_mean_over_the_targets_that_one_of_both_reached():
    found = pairs({0: several(0, 10.0, 20.0, None)}, {0: several(0, 20.0, 160.0, None)})
    assert np.exp(found.log_ratio) == pytest.approx([4.0])  # sqrt(2 * 8); both missed the third
    assert (found.at_least, found.at_most, found.seeds) == (False, False, (0,))
    bound = pairs({3: several(3, 10.0, 25.0)}, {3: several(3, 20.0, None, end=50.0)})
    assert np.exp(bound.log_ratio) == pytest.approx([2.0])
    assert (bound.at_least, bound.at_most) == (True, False)
    assert pairs({0: several(0, None, None)}, {0: several(0, None, None)}) is None


def test_a_method_against_itself_is_one_and_leads_nowhere():
    own = {seed: several(seed, 3.0 + seed, 5.0 + seed**2) for seed in range(8)}
    found = geometric_mean([pairs(own, own)])
    assert str(found) == "1.00 (1.00–1.00)" and not found.leads and not found.trails
    assert power([pairs(own, own)]) == 1.0


def test_a_lead_needs_an_interval_without_one_enough_pairs_and_no_bound_against_it():
    def ratio(values, **bounds):
        flags = {"at_least": False, "at_most": False, **bounds}
        return geometric_mean([Pairs(np.log(values), **flags)])

    clear, unclear = [1.5, 1.6, 1.4, 1.7, 1.5], [0.7, 1.6, 0.9, 1.7, 1.5]
    assert ratio(clear).leads and not ratio(clear).trails
    assert not ratio(unclear).leads and not ratio(clear[:4]).leads
    assert ratio(clear, at_least=True).leads and not ratio(clear, at_most=True).leads
    slower = [1 / value for value in clear]
    assert ratio(slower).trails and not ratio(slower, at_least=True).trails


def test_a_loss_is_called_where_a_missed_target_does_not_carry_it():
    """A target that the other missed may hide a loss at the others, or be all of it."""
    ours = {seed: several(seed, 10.0, 20.0, 30.0) for seed in range(6)}
    faster = {seed: several(seed, 5.0 + seed / 10, 10.0, 20.0) for seed in range(6)}
    hidden = {**faster, 0: several(0, 5.0, 10.0, None, end=31.0)}
    found = geometric_mean([pairs(ours, hidden)])
    assert found.at_least and found.high < 1 and found.trails
    # Of pairs with no target that both reached nothing is known but the bound.
    none = {seed: several(seed, None, None, None, end=9.0) for seed in range(6)}
    bound = geometric_mean([pairs(ours, none)])
    assert bound.at_least and bound.high < 1 and not bound.trails
    few = {seed: faster[seed] if seed < 4 else none[seed] for seed in range(6)}
    assert not geometric_mean([pairs(ours, few)]).trails


def test_settings_of_the_same_seeds_are_drawn_together():
    """Luck that two settings share does not average out: the interval is that of one."""
    values = np.log([1.1, 1.4, 0.9, 2.0, 1.7, 1.2])
    one = Pairs(values, at_least=False, at_most=False, seeds=tuple(range(6)))
    other = Pairs(values, at_least=False, at_most=False, seeds=tuple(range(10, 16)))
    alone, twice, apart = (geometric_mean(each) for each in ([one], [one, one], [one, other]))
    assert (alone.low, alone.high) == (twice.low, twice.high)
    assert apart.high - apart.low < 0.8 * (alone.high - alone.low)


def test_at_the_ratio_of_its_power_four_of_five_repetitions_tell_it_from_one():
    rng = np.random.default_rng(0)
    spread, count = 0.3, 8
    drawn = rng.normal(0.0, spread, size=(4000, count))
    # At a spread that is known: s of the formula is its estimate.
    exact = Pairs(spread * np.sqrt(7 / 8) * np.tile([1.0, -1.0], 4), at_least=False, at_most=False)
    shifted = drawn + np.log(power([exact]))
    t = shifted.mean(axis=1) / (shifted.std(axis=1, ddof=1) / np.sqrt(count))
    assert np.mean(t > 1.8946) == pytest.approx(0.8, abs=0.03)
    one = Pairs(drawn[0], at_least=False, at_most=False, seeds=tuple(range(count)))
    other = Pairs(-drawn[0], at_least=False, at_most=False, seeds=tuple(range(count)))
    assert power([one, other]) == pytest.approx(1.0)
    assert power([Pairs(drawn[0, :1], at_least=False, at_most=False)]) is None


def test_power_counts_the_seeds_that_a_setting_lacks():
    """The variance of a sum of independent means is the sum of theirs."""
    rng = np.random.default_rng(2)
    few, many = rng.normal(0, 0.2, 400), rng.normal(0, 0.3, 800)
    made = [
        Pairs(few, at_least=False, at_most=False, seeds=tuple(range(400))),
        Pairs(many, at_least=False, at_most=False, seeds=tuple(range(1000, 1800))),
    ]
    error = np.sqrt(few.var() / 400 + many.var() / 800) / 2
    assert np.log(power(made)) == pytest.approx((1.6449 + 0.8416) * error, rel=0.01)


def test_the_interval_is_that_of_scipys_percentile_bootstrap():
    values = np.log([1.1, 1.4, 0.9, 2.0, 1.7, 1.2, 1.3, 0.8])
    found = geometric_mean([Pairs(values, at_least=False, at_most=False)])
    # Eight pairs: 2.14 % on each side, where a normal law with the 95 % quantile of Student's for 7
    # and the variance over n - 1 has its own: Phi(-1.8946 * sqrt(8 / 7)).
    assert tail_of(8) == pytest.approx(0.0214, abs=5e-5)
    theirs = bootstrap(
        (values,),
        np.mean,
        confidence_level=1 - 2 * 0.0214,
        method="percentile",
        n_resamples=20_000,
        rng=1,
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


def test_the_planner_takes_the_schedule_that_it_predicts_to_be_clearly_faster():
    ours = {0: run(0, 10.0, gain=1.4), 1: run(1, 30.0, gain=1.2), 2: run(2, 1.0, gain=2.0)}
    for enough, seconds in ((1.3, {0: 10.0, 1: 20.0}), (1.6, {0: 20.0, 1: 20.0})):
        chosen = chosen_by_plan(ours, runs(20.0, 20.0), "synchronous", enough)
        assert {seed: line["seconds"] for seed, line in chosen.items()} == seconds


def test_runs_are_found_by_setting_and_method():
    line = {**run(3, 1.0), "task": "t", "network": "n", "method": "m"}
    assert runs_of([line, {**line, "method": "o"}], ("t", "n"), "m") == {3: line}
