"""The planner of overlapping rounds: no schedule that is drawn is better, limits are kept."""

from dataclasses import replace

import numpy as np
import pytest

from fedpace.planning.overlap.fleet import fleet_of, grouped_fleet
from fedpace.planning.overlap.objective import cost_of, schedule_cost
from fedpace.planning.overlap.planner import overlapping
from fedpace.planning.solver.objective import Problem
from planning.some_problems import some_clients, some_problem, some_system


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_no_random_schedule_is_better(seed):
    problem = some_problem(6, seed)
    made = overlapping(problem)
    assert made.verdict == "converged"
    rng = np.random.default_rng(seed)
    for _ in range(40):
        q = np.clip(made.start_probability * rng.lognormal(sigma=0.5, size=6), 1e-3, 1)
        k = np.clip(made.sketch_rank + rng.integers(-2, 3, 6), 1, 8).astype(np.float64)
        beat = made.beat_seconds * rng.lognormal(sigma=0.2) + 0.0
        beat = max(beat, made.beat_seconds)  # shorter ones are not allowed everywhere
        cost, _ = schedule_cost(q, k, beat, problem.clients, problem.system)
        assert cost.objective_seconds > made.cost.objective_seconds * 0.995


def test_limits_are_kept():
    clients = some_clients(
        20, 2, max_rank=np.where(np.arange(20) % 3, 2, 9), step_joules=np.full(20, 1.0),
        max_joules_per_round=np.linspace(0.2, 5, 20), availability=np.linspace(0.5, 1, 20),
    )  # fmt: skip
    problem = Problem(clients, some_system(20), q_min=0.02)
    made = overlapping(problem)
    assert np.all(made.sketch_rank <= np.minimum(clients.max_rank, 8))
    assert np.all((made.start_probability >= 0.02) & (made.start_probability <= 1))
    assert np.all(5 * made.law.chance <= clients.max_joules_per_round * 1.05)
    assert made.law.utilisation < 0.97
    loose = made.law.p95_age_seconds()
    tight = overlapping(replace(problem, p95_limit_seconds=0.7 * loose, made={}))
    assert tight.verdict == "converged" and tight.law.p95_age_seconds() <= 0.7 * loose
    assert tight.cost.objective_seconds > made.cost.objective_seconds


@pytest.mark.slow
def test_groups_stand_for_their_members():
    clients, system = some_clients(4000, 3), some_system(4000)
    single = fleet_of(clients, system)
    groups = grouped_fleet(single, clients, system)
    assert len(groups) <= 2000 and groups.members.sum() == 4000
    assert groups.members @ groups.data_weight == pytest.approx(1)
    rank = np.full(4000, 8.0)
    work = groups.members @ groups.work_seconds(rank[: len(groups)])
    assert work == pytest.approx(single.work_seconds(rank).sum())
    made = overlapping(Problem(clients, system))
    assert made.verdict == "converged" and len(made.start_probability) == 4000
    again = cost_of(single, made.law, made.sketch_rank.astype(np.float64))
    assert again == made.cost and made.law.utilisation < 0.97
