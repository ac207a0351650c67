"""The bound for stale updates: today's theorem at b = 1, and above what quadratics do."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from fedpace.core.errors import InputError
from fedpace.core.sketch import RESIDUAL, SCALED
from fedpace.planning.bound import BoundConstants, convergence_bound
from fedpace.planning.overlap.bound import stale_bound

_file = Path(__file__).parents[3] / "benchmarks" / "quadratics.py"
_spec = importlib.util.spec_from_file_location("quadratics", _file)
quadratics = importlib.util.module_from_spec(_spec)
sys.modules.setdefault("quadratics", quadratics)
_spec.loader.exec_module(quadratics)
CLIENTS = RANK = 6


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("sketch", [SCALED, RESIDUAL])
def test_without_delay_it_is_the_theorem_of_synchronous_rounds(sketch, steps):
    rng = np.random.default_rng(steps)
    a, q, k = rng.dirichlet(np.ones(5)), rng.uniform(0.1, 1, 5), rng.integers(1, 9, 5)
    columns = rng.uniform(0.1, 1, (5, 5))
    constants = BoundConstants(1.7, columns[0], columns[1], 3.0, *columns[2:])
    how = dict(lora_rank=8, local_steps=steps, learning_rate=1e-4, server_step=1.3, sketch=sketch)
    known = convergence_bound(q, k, a, constants, rounds=70, **how)
    ours = stale_bound(q, np.ones(5), k, a, constants, beats=70, **how)
    assert known.admissible
    assert ours.total == pytest.approx(known.total, rel=1e-12)
    assert ours.absorbed == pytest.approx(known.absorbed, rel=1e-12)
    assert ours.global_step == pytest.approx(known.conditions[1].value, rel=1e-12)


def simulated(fed, q, age, k, how, beats, replicas, seed, weight=None):
    """Run overlapping rounds; |grad f(X_t)|^2 by replica and beat, (replicas, beats)."""
    rng = np.random.default_rng(seed)
    ratio = RANK / k
    cycle = age - 1 + 1 / q if weight is None else weight
    x = np.tile(fed.start, (replicas, 1))
    grad = quadratics.gradient(fed, k, how["sketch"])
    free = np.zeros((replicas, CLIENTS), dtype=int)
    pending = np.zeros((int(age.max()) + 1, replicas, RANK))
    measured = np.empty((replicas, beats))
    for t in range(beats):
        measured[:, t] = np.sum((x @ grad[:, :-1].T + grad[:, -1]) ** 2, axis=1)
        starts = (free <= t) & (rng.random((replicas, CLIENTS)) < q)
        for n in range(CLIENTS):
            order = rng.random((replicas, RANK)).argsort(axis=1).argsort(axis=1)
            chosen = (order < k[n]).astype(float)
            local = x.copy()
            for _ in range(how["local_steps"]):
                noise = fed.noise[n] * rng.normal(size=x.shape)
                local -= (
                    how["learning_rate"]
                    * chosen
                    * ((local - fed.optimum[n]) @ fed.hessian[n] + noise)
                )
            moved = (local - x) * ratio[n] * fed.data_weight[n] * cycle[n] * starts[:, n, None]
            pending[(t + age[n]) % len(pending)] += moved
            free[:, n] = np.where(starts[:, n], t + age[n], free[:, n])
        slot = (t + 1) % len(pending)
        x = x + how["server_step"] * pending[slot]
        pending[slot] = 0
    return measured


AGE = np.array([1, 2, 3, 5, 1, 4])
Q = np.array([0.3, 1.0, 0.5, 1.0, 0.8, 0.2])


@pytest.mark.parametrize("steps, k", [(1, 6), (1, 3), (3, 6)])
def test_quadratics_stay_under_it(steps, k):
    fed, rank = quadratics.least_squares(1, noise=0.5), np.full(CLIENTS, k)
    constants = quadratics.constants(fed, rank, RESIDUAL)
    how = dict(local_steps=steps, learning_rate=1.0, server_step=1.0, sketch=RESIDUAL)

    def bound(rate, beats=400):
        return stale_bound(
            Q, AGE, rank, fed.data_weight, constants, lora_rank=RANK, beats=beats,
            **(how | {"learning_rate": rate}),
        )  # fmt: skip

    rate = next(r for r in np.geomspace(1, 1e-5, 200) if bound(r).absorbed < 0.5
                and bound(r).total < np.inf)  # fmt: skip
    how["learning_rate"] = rate
    runs = simulated(fed, Q, AGE, rank, how, 400, 30, 0).mean(axis=1)
    error = runs.std(ddof=1) / np.sqrt(len(runs))
    assert runs.mean() + 4 * error < bound(rate).total
    # And it is no bound at all without the way to go.
    assert runs.mean() > 0.02 * bound(rate).total


def test_the_weights_lead_to_the_optimum_and_naive_ones_elsewhere():
    fed, rank = quadratics.least_squares(2, noise=0.0, target_skew=2.0), np.full(CLIENTS, RANK)
    how = dict(local_steps=1, learning_rate=0.004, server_step=1.0, sketch=RESIDUAL)
    right = simulated(fed, Q, AGE, rank, how, 4000, 4, 1)[:, -1500:].mean()
    naive = simulated(fed, Q, AGE, rank, how, 4000, 4, 1, weight=1 / Q)[:, -1500:].mean()
    assert right < 0.2 * naive


def test_an_age_between_beats_is_refused():
    constants = BoundConstants(1.0, 1.0, 1.0, 1.0)
    with pytest.raises(InputError, match=r"age_beats\[1\] is 1.5"):
        stale_bound([1, 1], [1, 1.5], [2, 2], [0.5, 0.5], constants, lora_rank=2, local_steps=1,
                    learning_rate=0.1, beats=5)  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"start_probability": [0.5, 0]}, r"sampling_probability\[1\] is 0"),
        ({"sketch_rank": [2, 3]}, r"sketch_rank\[1\] is 3"),
        ({"data_weight": [0.5, 0.6]}, "data_weight sums to 1.1"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"beats": 0}, "beats is 0"),
    ],
)
def test_what_the_synchronous_bound_refuses_this_one_refuses(change, message):
    good = dict(start_probability=[1, 1], age_beats=[1, 2], sketch_rank=[2, 2],
                data_weight=[0.5, 0.5], constants=BoundConstants(1.0, 1.0, 1.0, 1.0), lora_rank=2,
                local_steps=1, learning_rate=0.01, beats=5)  # fmt: skip
    assert stale_bound(**good).global_step < 1
    with pytest.raises(InputError, match=message):
        stale_bound(**{**good, **change})
