"""Polishing: what it leaves cannot be bettered by one client's rank, and limits are kept."""

from itertools import product

import numpy as np
import pytest

from fedpace.core.profile import Clients, System
from fedpace.core.sketch import RESIDUAL, SCALED
from fedpace.planning.overlap.fleet import fleet_of
from fedpace.planning.overlap.objective import schedule_cost
from fedpace.planning.overlap.planner import overlapping
from fedpace.planning.overlap.polish import polished
from fedpace.planning.overlap.schedule import scheduled
from fedpace.planning.overlap.step import THETA
from fedpace.planning.solver.objective import Problem, rank_limit
from planning.some_problems import some_problem


@pytest.mark.slow
@pytest.mark.parametrize(("count", "seed"), [(3, 1), (4, 9)])
def test_no_other_rank_of_one_client_is_better(count, seed):
    # Ranks that are in time for a beat sooner lie far from those that are not.
    problem = some_problem(count, seed, spread=1.3, rank=32)
    made = overlapping(problem)
    for n in range(count):
        for k in range(1, 33):
            rank = made.sketch_rank.astype(np.float64)
            rank[n] = k
            given = made.start_probability, rank, made.beat_seconds
            cost, _ = schedule_cost(*given, problem.clients, problem.system)
            assert cost.objective_seconds > made.cost.objective_seconds * 0.996


def test_from_a_bad_start_it_gets_far_and_keeps_the_beat_if_told_to():
    problem = some_problem(3, 2)
    fleet, most = fleet_of(problem.clients, problem.system), rank_limit(problem)
    bad = scheduled(fleet, np.full(3, 0.05), np.ones(3), 9.0, THETA)
    kept, tried = polished(problem, fleet, most, bad, None, THETA)
    free, _ = polished(problem, fleet, most, bad, 0.5, THETA)
    costs = [each.cost.objective_seconds for each in (free, kept, bad)]
    assert costs[0] < 0.9 * costs[1] and costs[1] < 0.5 * costs[2]
    assert kept.beat_seconds == 9.0 and free.beat_seconds >= 0.5 and tried > 20


def test_a_limit_on_the_age_is_kept():
    problem = some_problem(3, 2, p95_limit_seconds=19.0)  # without it: 19.3 s
    fleet, most = fleet_of(problem.clients, problem.system), rank_limit(problem)
    start = scheduled(fleet, np.full(3, 0.05), np.ones(3), 9.0, THETA)
    assert start.law.p95_age_seconds() <= 19.0
    made, _ = polished(problem, fleet, most, start, 0.5, THETA)
    assert made.law.p95_age_seconds() <= 19.0
    assert made.cost.objective_seconds < start.cost.objective_seconds


def few_clients(bandwidth_hz, noise_ratio, lora_rank, sketch=RESIDUAL, **columns):
    system = System(bandwidth_hz, lora_rank, 5, 4e6, 1e6, sketch, noise_ratio)
    return Problem(Clients.from_columns(**columns), system)


LATE_BY_A_RANK = few_clients(
    685_854.0, 0.033675, 16, data_weight=[0.225785, 0.774215], step_seconds=[1.79791, 0.869804],
    step_seconds_per_rank=[0.0112369, 0.00543628], spectral_efficiency=[1.913387, 1.514635],
    max_bandwidth_hz=[209_611.0, 271_519.0], max_rank=[16, 16],
    availability=[0.359288, 0.725541], update_second_moment=[1.424356, 0.841948],
)  # fmt: skip
UPLOADS_THAT_MEET = few_clients(
    73_762_280.0, 0.104914, 32, data_weight=[0.466158, 0.533842],
    step_seconds=[0.235781, 1.774296], step_seconds_per_rank=[0.000736815, 0.00554468],
    spectral_efficiency=[0.400642, 0.929653], max_rank=[32, 8],
    availability=[0.638244, 0.789973], update_second_moment=[1.424748, 4.335132],
)  # fmt: skip
FIVE_BEATS_FOR_ONE = few_clients(
    59_574.7, 0.126826, 4, SCALED, data_weight=[0.238037, 0.761963],
    step_seconds=[12.5464, 1.60594], step_seconds_per_rank=[0.31366, 0.0401486],
    spectral_efficiency=[11.6082, 2.749262], update_second_moment=[0.716498, 6.009182],
)  # fmt: skip
ONE_LETS_ANOTHER_PASS = few_clients(
    28_923_506.0, 0.374474, 32, data_weight=[0.117445, 0.080572, 0.801983],
    step_seconds=[2.035215, 0.146894, 0.270457],
    step_seconds_per_rank=[0.00636005, 0.000459044, 0.000845177],
    spectral_efficiency=[1.331246, 1.699028, 1.580964],
    max_bandwidth_hz=[27_070_505.0, 39_490_117.0, 37_117_209.0],
    update_second_moment=[0.887483, 0.817736, 1.377024],
)  # fmt: skip


@pytest.mark.parametrize(
    ("problem", "ranks"),
    [
        (LATE_BY_A_RANK, [range(1, 6), range(1, 6)]),
        (UPLOADS_THAT_MEET, [[1, 6, 8, 9, 10, 14, 23, 32], [6, 7, 8]]),
        (FIVE_BEATS_FOR_ONE, [range(1, 5), range(1, 5)]),
        (ONE_LETS_ANOTHER_PASS, [[20, 23, 32], [7, 32], [22, 23, 24]]),
    ],
    ids=["late by a rank", "uploads that meet", "five beats for one", "one lets another pass"],
)
def test_no_ranks_and_beat_that_just_holds_them_are_better(problem, ranks):
    # One rank, or the beat, changed alone makes each schedule of a plain descent worse.
    fleet = fleet_of(problem.clients, problem.system)
    shortest = fleet.alone_seconds(rank_limit(problem)).max() / 8  # that the planner considers
    least = np.inf
    for each in product(*ranks):
        k = np.array(each, dtype=np.float64)
        beats = np.concatenate([fleet.alone_seconds(k) / m for m in range(1, 7)])
        for beat in beats[beats >= shortest]:
            made = scheduled(fleet, np.ones(len(k)), k, float(beat), THETA)
            least = min(least, made.cost.objective_seconds)
    assert overlapping(problem).cost.objective_seconds < least * 1.005
