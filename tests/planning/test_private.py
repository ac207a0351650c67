"""Plans under max_epsilon: every client keeps it, by an account of each; what is refused."""

import numpy as np
import pytest

pytest.importorskip("dp_accounting")

from fedpace.estimation.privacy_loss import PrivacyLimit, epsilon, round_loss
from fedpace.planning.planner import plan
from planning.some_problems import some_clients, some_system

ROUNDS, DELTA, Z = 30, 1e-3, 1.0


def spent(made, clients, z=Z, rounds=ROUNDS):
    """Epsilon of each client, by its own q and its own weight."""
    weight = clients.data_weight / made.sampling_probability / clients.availability
    return epsilon(rounds * round_loss(made.sampling_probability, weight, z), DELTA)


@pytest.fixture(scope="module")
def clients():
    rng = np.random.default_rng(0)
    return some_clients(5, 3, availability=rng.uniform(0.4, 1, 5))


def system(noise_ratio=0.5):
    return some_system(5, noise_ratio=noise_ratio, allocation="equal-finish")


@pytest.mark.parametrize(
    ("planner", "limit"),
    [("exact", 0.5), ("exact", 4.0), ("paper", 4.0), ("full", 0.5), ("full", 4.0),
     ("uniform", 0.5), ("weighted", 4.0)],
)  # fmt: skip
def test_no_client_passes_the_limit(planner, limit, clients):
    held = PrivacyLimit(Z, DELTA, limit, ROUNDS)
    # A large noise ratio, so that all would take part all the time.
    made = plan(clients, system(30.0), planner, privacy=held, predict=False)
    assert made.verdict == "converged"
    assert spent(made, clients).max() <= limit * (1 + 1e-6)
    assert (made.sampling_probability >= 1e-3).all()
    if planner == "full":  # held at its bound, not far below
        assert spent(made, clients).max() > 0.9 * limit


def test_one_client_is_held_and_the_others_are_free(clients):
    made = plan(clients, system(30.0), "full", privacy=PrivacyLimit(Z, DELTA, 2.0, ROUNDS))
    held = made.binds["privacy"]
    assert held.sum() == 1
    assert (made.sampling_probability[~held] == 1).all()
    share = clients.data_weight / clients.availability
    assert np.argmax(held) == np.argmax(share)  # all being at 1 it is the nearest to its bound


def test_a_limit_that_is_kept_anyway_changes_nothing(clients):
    free = plan(clients, system(), predict=False)
    limit = PrivacyLimit(5.0, DELTA, 1e3, ROUNDS)
    loose = plan(clients, system(), privacy=limit, predict=False)
    assert np.array_equal(free.sampling_probability, loose.sampling_probability)


@pytest.mark.slow
def test_a_tighter_limit_takes_no_less_time(clients):
    seconds = [
        plan(clients, system(3.0), privacy=PrivacyLimit(Z, DELTA, e, ROUNDS)).objective_seconds
        for e in (1.0, 3.0, 100.0)
    ]
    assert seconds[0] >= seconds[1] * (1 - 1e-6) and seconds[1] >= seconds[2] * (1 - 1e-6)


@pytest.mark.parametrize(
    ("planner", "terms", "message"),
    [
        ("exact", (0.0, DELTA, 2.0, ROUNDS), "noise_multiplier = 0 max_epsilon = 2 allows"),
        ("exact", (0.3, DELTA, 0.01, ROUNDS), "below q_min = 0.001; raise max_epsilon or"),
        ("infocom22", (Z, DELTA, 2.0, ROUNDS), "another planner than 'infocom22'"),
    ],
)
def test_a_limit_that_nothing_keeps_is_told_in_a_line(planner, terms, message, clients):
    made = plan(clients, system(), planner, privacy=PrivacyLimit(*terms), predict=False)
    assert made.verdict.startswith("infeasible: ") and message in made.verdict
    assert "\n" not in made.verdict


def test_rounds_that_overlap_are_refused(clients):
    never_idle = some_system(5, allocation="work-conserving")
    limit = PrivacyLimit(Z, DELTA, 2.0, ROUNDS)
    made = plan(clients, never_idle, schedule="overlapping", privacy=limit)
    assert made.verdict.startswith("infeasible: ") and "schedule 'synchronous'" in made.verdict


def test_auto_leaves_private_rounds_synchronous(clients):
    never_idle = some_system(5, allocation="work-conserving")
    limit = PrivacyLimit(Z, DELTA, 2.0, ROUNDS)
    made = plan(clients, never_idle, schedule="auto", privacy=limit)
    alike = plan(clients, never_idle, privacy=limit)
    assert made.schedule == "synchronous"
    np.testing.assert_array_equal(made.sampling_probability, alike.sampling_probability)
