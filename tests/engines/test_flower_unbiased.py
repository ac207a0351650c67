"""Clients that fail at random, over Flower: what the server makes of the rest has no bias.

The whole loop of a run is played: messages as bytes, failures at rates that only the clients know,
availability estimated from who answered, weights from it, the server's step.
"""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("flwr")
pytest.importorskip("torch")

from flwr.app import Error, Message

from contracts.test_engines import Clock
from engines.fake_grid import FakeGrid
from federation.toy import LAYOUT, exchange, random_adapter
from fedpace.core.adapter import take_components
from fedpace.core.messages import ClientUpdate
from fedpace.deploy.population import grown_population
from fedpace.engines.flower.client import ClientWork, make_client_app
from fedpace.engines.flower.engine import FlowerEngine
from fedpace.engines.flower.messages import Wire
from fedpace.engines.flower.roster import Roster
from fedpace.experiment.run import run
from fedpace.experiment.site import Site
from fedpace.federation.checks import Checks
from toy_work import toy_experiment, toy_network, toy_work

pytestmark = [pytest.mark.slow, pytest.mark.flower, pytest.mark.torch]
ANSWERS = np.array([0.9, 0.5, 0.3, 0.6])
EXAMPLES = np.array([10, 20, 30, 40])
SHARE = EXAMPLES / EXAMPLES.sum()
RATE, ROUNDS, SETTLED, COMES = 1e-4, 1000, 250, 100
"""The last client comes after so many rounds; from the 250th on, the mean is taken."""
ROLES = ("A", "B", "head")


def always(n):
    """A trainer whose update is the same in every round, another one for each client."""

    def train(tasks):
        return [
            ClientUpdate(t.client, t.round_index, np.arange(LAYOUT.rank),
                         take_components(random_adapter(n), LAYOUT, np.arange(LAYOUT.rank)), 1.0)
            for t in tasks
        ]  # fmt: skip

    return train


def client(n, rng):
    """An app that breaks down in a share of its rounds."""
    app = make_client_app(
        lambda offer, context: {"name": f"client-{n}", "examples": int(EXAMPLES[n])},
        lambda context: ClientWork(lambda method: exchange(), lambda sketch, trained: always(n)),
    )

    def answer(message, context):
        if message.metadata.message_type == "train" and rng.random() >= ANSWERS[n]:
            return Message(Error(code=6, reason="broken down"), reply_to=message)
        return app(message, context)

    return answer


def played(folder):
    """The records of a run, and the adapter after `SETTLED` and after all rounds."""
    experiment = toy_experiment(
        methods=["full"],
        training={"rounds": ROUNDS, "eval_every": SETTLED, "server_learning_rate": RATE},
        output={"checkpoint_every": ROUNDS},
    )
    rng, clock, adapters = np.random.default_rng(5), Clock(), []
    grid = FakeGrid({n: client(n, rng) for n in range(3)})
    roster = Roster(grid, {"run": "r"}, clock=clock)
    roster.poll()
    roster.begin()

    def make_engine(setup, now, renewal):
        return FlowerEngine(
            grid, roster, Wire("r", setup.method, setup.exchange), setup.network,
            experiment.seed, deadline=lambda tasks: 10.0, clock=clock, sleep=clock.sleep,
        )  # fmt: skip

    def newcomers(work):
        new = roster.admit()
        if not new:
            return work
        return replace(work, network=grown_population(experiment, work.network, roster))

    def show(record, rounds):
        if record.round == COMES:
            grid.apps[3] = client(3, rng)

    work = toy_work(toy_network(experiment, EXAMPLES[:3]), seen=adapters)
    site = Site(work, make_engine, Checks(), learn_availability=True, newcomers=newcomers)
    done = run(experiment, out=folder, site=lambda experiment: site, show=show)
    assert [r.round for r in done.records if r.entered] == [COMES + 2]
    # The first is the evaluation before the run.
    return done.records, adapters[1], adapters[-1]


def mean_weights(records):
    """Over the rounds, of each client; and how often it answered."""
    total, came = np.zeros(4), np.zeros(4)
    for record in records:
        for p in record.participants:
            total[p.client] += p.weight
            came[p.client] += 1
    return total / len(records), came / len(records)


def test_random_failure_at_unknown_rates_leaves_no_bias_also_for_who_came_late(tmp_path):
    records, early, late = played(tmp_path / "run")
    weight, came = mean_weights(records[SETTLED:])
    np.testing.assert_allclose(came, ANSWERS, atol=0.06)  # the failures are there
    # A weight's mean is a_n; its standard error is that of Bernoulli / p over the rounds.
    error = SHARE * np.sqrt((1 - ANSWERS) / ANSWERS / (ROUNDS - SETTLED))
    assert np.all(np.abs(weight - SHARE) < 3 * error)
    # With the profiles' availability, 1, the mean would be that share of it that answered.
    assert np.all(np.abs(SHARE * came - SHARE) > 3 * error)
    # And what the server moved along is the update of all clients, at their data weights.
    for name in early:
        moved = (late[name] - early[name]) / (RATE * (ROUNDS - SETTLED))
        expected = sum(SHARE[n] * random_adapter(n)[name] for n in range(4))
        spread = sum(3 * error[n] * np.abs(random_adapter(n)[name]) for n in range(4))
        assert np.all(np.abs(moved - expected) < spread + 1e-3)
