"""The search along the axes, on trainings whose outcome is written down."""

import pytest

from fedpace.bench import search
from fedpace.bench.suite import Suite
from fedpace.bench.training import Trained

PAIR = ("n", "equal-finish")


def suite(kind="ours", sizes="cohort"):
    return Suite(
        seeds=[0], budget={"client_updates": 9, "rounds": 9}, experiment={},
        tasks={"t": {"target": "accuracy>=0.8", "experiment": {}}}, networks={"n": {}},
        settings=[{"task": "t", "network": "n"}],
        rates={"r": [{"learning_rate": r} for r in (0.1, 0.2, 0.4)]},
        sizes={"cohort": [{"cohort": c} for c in (0.05, 0.1, 0.2, 0.5, 0.9)]},
        methods={"m": {"kind": kind, "rates": "r", "sizes": sizes}},
    )  # fmt: skip


@pytest.fixture
def outcomes(monkeypatch):
    """(rate, cohort) -> (seconds or None, accuracy); what was asked for is recorded."""
    table, asked = {}, []

    def train(suite, spec, folder, beaten):
        key = (dict(spec.rate)["learning_rate"], dict(spec.size).get("cohort"))
        seconds, accuracy = table[key]
        asked.append((*key, spec.seed, spec.tuning, beaten({PAIR: [5.0]})))
        end = 100.0 if seconds is None else seconds
        return Trained(
            "budget" if seconds is None else "target", {"n": {"equal-finish": [end]}}, {"n": end},
            {}, [(1, {"accuracy": accuracy})], 1, 1, 0.0,
        )  # fmt: skip

    monkeypatch.setattr(search, "train", train)
    return table, asked


def test_rates_first_then_sizes_outwards_as_long_as_they_win(outcomes, tmp_path):
    table, asked = outcomes
    table |= {(0.1, 0.2): (30.0, 0.8), (0.2, 0.2): (20.0, 0.8), (0.4, 0.2): (None, 0.3)}
    table |= {(0.2, 0.1): (25.0, 0.8), (0.2, 0.5): (10.0, 0.8), (0.2, 0.9): (11.0, 0.8)}
    choice = search.tune(suite(), "t", "m", ("n",), tmp_path)[PAIR]
    assert (dict(choice.rate), dict(choice.size)) == ({"learning_rate": 0.2}, {"cohort": 0.5})
    assert choice.seconds == 10.0
    rates = [(0.1, 0.2), (0.2, 0.2), (0.4, 0.2)]
    assert [entry[:2] for entry in asked] == [*rates, (0.2, 0.1), (0.2, 0.5), (0.2, 0.9)]
    assert all(seed == 100 and tuning for _, _, seed, tuning, _ in asked)


def test_a_candidate_is_beaten_only_by_one_that_arrived_earlier(outcomes, tmp_path):
    table, asked = outcomes
    table |= {(0.1, None): (None, 0.5), (0.2, None): (4.0, 0.8), (0.4, None): (3.0, 0.8)}
    search.tune(suite(sizes=None), "t", "m", ("n",), tmp_path)
    # At 5 s nothing is lost before somebody arrived at 4 s.
    assert [entry[-1] for entry in asked] == [False, False, True]


def test_where_nobody_arrives_the_nearest_is_chosen(outcomes, tmp_path):
    table, _ = outcomes
    table |= {(0.1, None): (None, 0.5), (0.2, None): (None, 0.7), (0.4, None): (None, 0.6)}
    choice = search.tune(suite(sizes=None), "t", "m", ("n",), tmp_path)[PAIR]
    assert dict(choice.rate) == {"learning_rate": 0.2} and choice.seconds is None


def test_a_single_candidate_is_not_trained(outcomes, tmp_path):
    one = suite(sizes=None).model_copy(update={"rates": {"r": [{"learning_rate": 0.1}]}})
    choice = search.tune(one, "t", "m", ("n",), tmp_path)[PAIR]
    assert (dict(choice.rate), choice.size, choice.seconds) == ({"learning_rate": 0.1}, (), None)
    assert outcomes[1] == []
