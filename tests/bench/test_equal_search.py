"""The search with as many candidates for all, on trainings whose outcome is written down."""

import math

import pytest

from fedpace.bench import equal_search
from fedpace.bench.equal_search import next_place, tune_equally
from fedpace.bench.suite import Suite
from fedpace.bench.training import Trained
from fedpace.core.errors import InputError
from fedpace.experiment.parsing import parse

PAIR = ("n", "work-conserving")
GOALS = ["accuracy>=0.7", "accuracy>=0.8"]


def described(runs=5, sizes=5, **more):
    return {
        "seeds": [0], "tuning_seeds": [100, 101], "tuning_runs": runs,
        "allocation": "work-conserving", "budget": {"client_updates": 9, "rounds": 9},
        "experiment": {}, "tasks": {"t": {"targets": GOALS, "experiment": {}}},
        "networks": {"n": {}}, "settings": [{"task": "t", "network": "n"}],
        "rates": {"r": [{"learning_rate": r} for r in (0.1, 0.2, 0.4)]},
        "sizes": {"s": [{"cohort": c} for c in (0.05, 0.1, 0.2, 0.5, 0.9)[:sizes]]},
        "methods": {"m": {"kind": "sampler", "rates": "r", "sizes": "s"}}, **more,
    }  # fmt: skip


def suite(**more):
    return parse(Suite, described(**more), "suite")


@pytest.fixture
def outcomes(monkeypatch):
    """(rate, cohort) -> for each tuning seed the seconds to both targets, or None.

    What `beaten` says is asked at the moments at which a real training would ask: before the first
    evaluation, and after each target.
    """
    table, asked = {}, []

    def train(suite, spec, folder, beaten):
        key = (dict(spec.rate)["learning_rate"], dict(spec.size)["cohort"])
        times = table[key][spec.seed - 100]
        asked.append((*key, spec.seed))
        moments = [0.0, *(100.0 if t is None else t for t in times)]
        for now in moments:
            seen = [t if t is not None and t <= now else now for t in times]
            if beaten({PAIR: seen}):
                reached = [t if t is not None and t <= now else None for t in times]
                return made("beaten", reached, max(now, 0.5))
        arrived = times[-1] is not None
        return made("target" if arrived else "budget", times, times[-1] if arrived else 100.0)

    def made(ended, times, end):
        return Trained(
            ended, {"n": {"work-conserving": [end]}}, {"n": end}, {}, [(1, {"accuracy": 0.1})],
            1, 1, 2.0, None, {"n": {"work-conserving": dict(zip(GOALS, times, strict=True))}},
        )  # fmt: skip

    monkeypatch.setattr(equal_search, "train", train)
    return table, asked


def flat(seconds):
    return [(seconds, 2 * seconds)] * 2


def test_rates_at_the_middle_then_the_nearest_sizes_until_the_number_is_full(outcomes, tmp_path):
    table, asked = outcomes
    table |= {(0.1, 0.2): flat(30.0), (0.2, 0.2): flat(20.0), (0.4, 0.2): flat(25.0)}
    table |= {(0.2, 0.1): flat(10.0), (0.2, 0.05): flat(12.0), (0.2, 0.5): flat(1.0)}
    choice = tune_equally(suite(), "t", "m", ("n",), tmp_path)[PAIR]
    assert (dict(choice.rate), dict(choice.size)) == ({"learning_rate": 0.2}, {"cohort": 0.1})
    assert choice.seconds == pytest.approx(math.sqrt(10.0 * 20.0))
    # 0.1 was better than 0.2, so the fifth is its other neighbour: the fastest is never seen.
    order = [(0.1, 0.2), (0.2, 0.2), (0.4, 0.2), (0.2, 0.1), (0.2, 0.05)]
    assert list(dict.fromkeys((rate, size) for rate, size, _ in asked)) == order
    assert asked == [(*pair, seed) for pair in order for seed in (100, 101)]
    assert choice.cost["trainings"] == 10 and choice.cost["computing_seconds"] == 20.0


def test_the_choice_is_by_the_geometric_mean_over_seeds_and_targets(outcomes, tmp_path):
    table, _ = outcomes
    # Geometric means 40 and 24: by the arithmetic mean (or by the first seed) the first would win.
    table |= {(0.1, 0.05): [(40.0, 40.0), (40.0, 40.0)], (0.2, 0.05): [(90.0, 90.0), (6.4, 6.4)]}
    table |= {(0.4, 0.05): flat(99.0)}
    choice = tune_equally(suite(runs=3, sizes=1), "t", "m", ("n",), tmp_path)[PAIR]
    assert dict(choice.rate) == {"learning_rate": 0.2}
    assert choice.seconds == pytest.approx(24.0)


def test_who_missed_a_target_comes_behind_whatever_its_times(outcomes, tmp_path):
    table, _ = outcomes
    table |= {(0.1, 0.05): [(1.0, None), (1.0, 2.0)], (0.2, 0.05): flat(80.0)}
    table |= {(0.4, 0.05): [(1.0, None), (1.0, None)]}
    choice = tune_equally(suite(runs=3, sizes=1), "t", "m", ("n",), tmp_path)[PAIR]
    assert dict(choice.rate) == {"learning_rate": 0.2}
    # Behind after its first seed, the third was stopped at once on its second.
    assert [each["missed"] for each in choice.cost["tried"]] == [1, 0, 3]


def test_giving_up_early_changes_no_winner(outcomes, monkeypatch, tmp_path):
    """Against the same search without it, on outcomes drawn at random."""
    import numpy as np

    table, _ = outcomes
    rng = np.random.default_rng(5)
    stopped = 0
    eager = equal_search.train
    for _ in range(60):
        for rate in (0.1, 0.2, 0.4):
            for cohort in (0.05, 0.1, 0.2, 0.5, 0.9):
                seeds = []
                for _ in range(2):
                    first, more = rng.integers(1, 6, size=2)
                    second = None if rng.random() < 0.2 else float(first + more)
                    seeds.append((float(first), second))
                table[rate, cohort] = seeds
        monkeypatch.setattr(equal_search, "train", eager)
        with_it = tune_equally(suite(), "t", "m", ("n",), tmp_path)[PAIR]
        stopped += sum("beaten" in each["ended"] for each in with_it.cost["tried"])
        monkeypatch.setattr(
            equal_search, "train", lambda s, p, f, beaten: eager(s, p, f, lambda least: False)
        )
        without = tune_equally(suite(), "t", "m", ("n",), tmp_path)[PAIR]
        assert (with_it.rate, with_it.size, with_it.seconds) == (
            without.rate, without.size, without.seconds,
        )  # fmt: skip
        tried = [[(e["rate"], e["size"]) for e in c.cost["tried"]] for c in (with_it, without)]
        assert tried[0] == tried[1]
    assert stopped > 30


def test_every_pair_is_tried_once_where_the_number_is_that_of_the_grid():
    orders = {}
    for count in range(6):
        place = next_place(2, 3, orders)
        assert place not in orders
        orders[place] = (0, float(-count))
    assert len(orders) == 6


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"runs": 4, "sizes": 1}, "'m' has 3 rates and 1 sizes, fewer pairs than tuning_runs = 4"),
        ({"allocation": None}, "tuning_runs needs allocation"),
        ({"tuning_seeds": None}, "go together"),
        ({"tuning_seed": 7}, "in the place of tuning_seed"),
        ({"seeds": [101]}, "tuning_seed 101 is among the compared seeds"),
        ({"tasks": {"t": {"experiment": {}}}}, "either target or targets"),
        ({"tasks": {"t": {"targets": GOALS[::-1], "experiment": {}}}}, "the easiest first"),
        ({"tasks": {"t": {"targets": [GOALS[0], "loss<=1"], "experiment": {}}}}, "of one metric"),
    ],
)
def test_what_is_no_equal_search_is_refused(more, message):
    with pytest.raises(InputError, match=message):
        suite(**more)
