"""The longest that a round waits, against a round computed by hand."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

pytest.importorskip("flwr")

from fedpace.core.messages import ClientTask
from fedpace.core.plan import Decision, Plan
from fedpace.core.profile import Clients, System
from fedpace.core.record import ParticipantRecord, RoundRecord
from fedpace.deploy.deadline import CEILING, LEAST_SECONDS, SLACK, Deadline
from fedpace.planning.planner import plan
from fedpace.planning.renewal import renew_every
from fedpace.wireless.network import Network

CLIENTS = Clients.from_columns(
    data_weight=[1, 1, 1], step_seconds=[1, 1, 1], spectral_efficiency=[1, 1, 1]
)
SYSTEM = System(bandwidth_hz=1e6, lora_rank=4, local_steps=10, fixed_bits=0.0, bits_per_rank=2.5e5)
PLAN = Plan("test", CLIENTS.client_id, Decision(np.ones(3), np.full(3, 4)))


def tasks(*who):
    return [ClientTask(n, 0, {}, 4, 0) for n in who]


class Known:
    """What is known of the clients, as a run has it: a new renewal after each round."""

    def __init__(self):
        self.renewal = renew_every(partial(plan, planner="full"), CLIENTS, SYSTEM, every=10**9)

    def __call__(self):
        return self.renewal

    def take(self, index, people):
        record = RoundRecord("t", index, 0.0, 1.0, people, 0, 0, 1.0, 1.0, 0.0)
        _, self.renewal = self.renewal.after(record, PLAN)


def observed(known, rounds, slower):
    """Every client takes `slower` times as long as profiled, in every round."""
    for index in range(rounds):
        # A third of the band each: 1 Mbit at 1/3 Mbit/s.
        people = tuple(
            ParticipantRecord(n, 4, 1 / 3, 125_000, 125_000, 10.0 * slower, 3.0 * slower, 1e6 / 3,
                              1.0, 1.0, 0.0)
            for n in range(3)
        )  # fmt: skip
        known.take(index, people)


@pytest.fixture
def deadline():
    return Deadline(Known(), Network(CLIENTS, SYSTEM), 0, 500.0)


def test_before_anyone_was_seen_twice_a_round_waits_as_told(deadline):
    assert deadline(tasks(0, 1, 2)) == 500.0
    observed(deadline.renewal, 1, 4.0)
    assert deadline(tasks(0, 1, 2)) == 500.0


def test_without_scatter_it_is_the_slack_times_the_round(deadline):
    observed(deadline.renewal, 5, 4.0)
    # One client: 40 s of steps, then 1 Mbit over the whole band at a quarter of its efficiency.
    assert deadline(tasks(0)) == pytest.approx(SLACK * (40 + 4), rel=1e-6)
    # Three alike share the band.
    assert deadline(tasks(0, 1, 2)) == pytest.approx(SLACK * (40 + 12), rel=1e-6)


def test_scatter_makes_it_longer_and_more_participants_too(deadline):
    for index, slower in enumerate((2.0, 6.0, 3.0, 5.0)):
        observed(deadline.renewal, 1, slower)
        del index
    calm = Deadline(Known(), deadline.network, 0, 500.0)
    observed(calm.renewal, 4, 4.0)
    assert deadline(tasks(0)) > 1.5 * calm(tasks(0))
    ratio = [d(tasks(0, 1, 2)) / d(tasks(0)) for d in (deadline, calm)]
    assert ratio[0] > ratio[1]


def test_a_short_round_is_still_given_time(deadline):
    quick = replace(deadline, network=replace(deadline.network, system=replace(
        SYSTEM, local_steps=1, bits_per_rank=1.0)))  # fmt: skip
    observed(quick.renewal, 3, 0.01)
    assert quick(tasks(0)) == LEAST_SECONDS


def test_a_client_that_answers_just_before_each_deadline_does_not_drive_it_up(deadline):
    """Client 2 takes 0.9 of whatever it is given; the others need 40 s and 12 s of sending."""
    limits = []
    observed(deadline.renewal, 3, 4.0)
    for index in range(60):
        limits.append(deadline(tasks(0, 1, 2)))
        people = tuple(
            ParticipantRecord(n, 4, 1 / 3, 125_000, 125_000, start, 12.0, 1e6 / 3, 1.0, 1.0, 0.0)
            for n, start in ((0, 40.0), (1, 40.0), (2, max(40.0, 0.9 * limits[-1] - 12.0)))
        )
        deadline.renewal.take(index, people)
    assert max(limits) <= 500.0  # the patience
    patient = replace(deadline, patience_seconds=1e9)
    assert patient(tasks(0, 1, 2)) <= 1.1 * SLACK * CEILING * 52
