"""How likely a client answers, learned from who did."""

from functools import partial

import numpy as np
import pytest

from fedpace.core.plan import Decision
from fedpace.core.profile import Clients, System
from fedpace.core.record import ParticipantRecord, RoundRecord
from fedpace.planning.planner import plan
from fedpace.planning.renewal import renew_every
from fedpace.planning.renewal_state import RenewalState

CLIENTS = Clients.from_columns(
    data_weight=[1, 1, 2], step_seconds=[0.1, 0.1, 0.1], spectral_efficiency=[1, 1, 1]
)
PLAN = Decision(np.ones(3), np.full(3, 4))


def record(index, came, missed, refused=()):
    people = tuple(
        ParticipantRecord(int(n), 4, 1 / 3, 10, 10, 0.5, 0.1, 1e5, 1.0, 1.0, 0.0) for n in came
    )
    return RoundRecord(
        "test", index, float(index), 1.0, people, 0, 0, 1.0, 1.0, 0.0,
        refusals=tuple((int(n), "bad") for n in refused), missing=tuple(int(n) for n in missed),
    )  # fmt: skip


@pytest.fixture
def renewal():
    system = System(bandwidth_hz=1e6, lora_rank=4)
    return renew_every(partial(plan, planner="full"), CLIENTS, system, every=10**9)


def test_weights_by_what_was_seen_so_far_are_unbiased_for_clients_that_fail_at_random(renewal):
    """Each round client n counts 1/p_n if it came: on average 1, whatever its failure rate."""
    answers, rounds, optimum = np.array([0.9, 0.5, 0.3]), 3000, 200
    rng = np.random.default_rng(0)
    total = np.zeros(3)
    for index in range(rounds):
        known = renewal.availability()  # of earlier rounds alone, as the server has it
        came = rng.random(3) < answers
        if index >= optimum:
            total += came / known
        _, renewal = renewal.after(record(index, np.flatnonzero(came), np.flatnonzero(~came)), PLAN)
    # Standard error of a mean of Bernoulli / p: sqrt((1 - p) / p / rounds), 0.03 at most.
    np.testing.assert_allclose(total / (rounds - optimum), 1.0, atol=0.1)
    np.testing.assert_allclose(renewal.availability(), answers, atol=0.04)


def test_before_anything_was_seen_it_is_the_profiles(renewal):
    np.testing.assert_allclose(renewal.availability(), 1.0)


def test_a_client_that_was_never_asked_is_taken_for_one_of_the_others(renewal):
    for index in range(40):
        came, missed = ([0], [1]) if index % 2 else ([], [0, 1])
        _, renewal = renewal.after(record(index, came, missed), PLAN)
    known = renewal.availability()
    assert known[1] < known[2] < known[0]


def test_a_refused_answer_is_an_answer(renewal):
    _, renewal = renewal.after(record(0, [0], [], refused=[1]), PLAN)
    assert renewal.state.answered.tolist() == [1, 1, 0]
    assert renewal.state.invited.tolist() == [1, 1, 0]


def test_the_counts_survive_a_checkpoint_and_old_checkpoints_are_read(renewal):
    _, renewal = renewal.after(record(0, [0], [1]), PLAN)
    table = renewal.state.to_json()
    again = RenewalState.from_json(table)
    assert again.invited.tolist() == [1, 1, 0]
    assert again.answered.tolist() == [1, 0, 0]
    del table["invited"], table["answered"]
    assert RenewalState.from_json(table).invited.tolist() == [1, 0, 0]
