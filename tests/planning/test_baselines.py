"""The other planners: each is what its paper says, with its own best cohort."""

from dataclasses import replace

import numpy as np
import pytest

from fedpace.core.plan import Decision
from fedpace.planning.baselines import fslora, full, oort, statistics, uniform, weighted
from fedpace.planning.exact import exact, icc24
from fedpace.planning.infocom22 import infocom22
from fedpace.planning.round_time.upper_bound import solo_seconds
from fedpace.planning.solver.limits import p95_seconds
from fedpace.planning.solver.objective import (
    probability_limit,
    rank_limit,
)
from planning.some_problems import some_problem, value_of

SCALED = {
    uniform: lambda c: np.ones(len(c)),
    weighted: lambda c: c.data_weight,
    statistics: lambda c: c.data_weight * np.sqrt(c.update_second_moment),
}


@pytest.mark.slow
@pytest.mark.parametrize("planner", SCALED)
@pytest.mark.parametrize("count", [4, 60])
def test_a_sampler_of_one_scale_has_its_form_and_its_best_scale(planner, count):
    problem = some_problem(count, 5)
    made = planner(problem)
    q, direction = made.decision.sampling_probability, SCALED[planner](problem.clients)
    free = (q > problem.q_min) & (q < 1)
    if free.sum() > 1:
        assert np.ptp(np.log(q / direction)[free]) < 1e-9
    assert np.all(made.decision.sketch_rank == 8)
    least = min(
        value_of(
            problem, Decision(np.clip(s * direction, problem.q_min, 1.0), made.decision.sketch_rank)
        )
        for s in np.geomspace(1e-3 / direction.max(), 1 / direction.min(), 300)
    )
    assert value_of(problem, made) <= least + 1e-4


@pytest.mark.parametrize("planner", SCALED)
def test_at_a_given_cohort_the_form_stays(planner):
    problem = some_problem(60, 5, cohort=0.3)
    q, direction = planner(problem).decision.sampling_probability, SCALED[planner](problem.clients)
    free = (q > problem.q_min) & (q < 1)
    assert free.sum() > 10
    assert np.ptp(np.log(q / direction)[free]) < 1e-9
    assert q.mean() == pytest.approx(0.3, rel=1e-9)


def test_a_cohort_that_breaks_a_limit_is_infeasible_and_says_so():
    slow = some_problem(20, 1, cohort=0.5, p95_limit_seconds=1e-3)
    assert "p95 limit" in uniform(slow).verdict and "0.5" in uniform(slow).verdict
    joules = {"max_joules_per_round": np.ones(20), "step_joules": np.ones(20)}
    poor = some_problem(20, 1, cohort=0.5, columns=joules)  # five steps: pays for q = 0.2
    assert "max_joules_per_round does not pay for cohort = 0.5" in weighted(poor).verdict
    rich = some_problem(20, 1, cohort=0.1, columns=joules)
    assert weighted(rich).decision.sampling_probability.mean() == pytest.approx(0.1)


def test_full_participation_is_everyone_always():
    made = full(some_problem(5))
    assert np.all(made.decision.sampling_probability == 1) and np.all(
        made.decision.sketch_rank == 8
    )


def test_statistics_allow_for_clients_that_often_do_not_answer():
    availability = np.where(np.arange(40) < 20, 0.25, 1.0)
    equal = {"data_weight": np.ones(40), "update_second_moment": np.ones(40)}
    made = statistics(
        some_problem(
            40, 2, columns={**equal, "availability": availability}, system={"noise_ratio": 0.1}
        )
    )
    q = made.decision.sampling_probability
    assert q[0] == pytest.approx(2 * q[39])  # 1 / sqrt(availability)


def test_oort_prefers_the_useful_and_punishes_the_slow_by_the_square():
    problem = some_problem(30, 6)
    made = oort(problem)
    clients, q = problem.clients, made.decision.sampling_probability
    seconds = solo_seconds(clients, problem.system, made.decision.sketch_rank.astype(float))
    worth = q / (clients.data_weight * np.sqrt(clients.update_second_moment))
    free = (q > problem.q_min) & (q < 1)
    fast = free & (worth > 0.999 * worth[free].max())
    slow = free & ~fast
    assert fast.sum() > 2 and slow.sum() > 2
    assert seconds[fast].max() <= seconds[slow].min()
    assert np.ptp((worth * seconds**2)[slow]) < 1e-9 * (worth * seconds**2)[slow].max()


def test_fslora_gives_faster_devices_larger_ranks_within_memory():
    problem = some_problem(20, 7, rank=16, columns={"max_rank": np.where(np.arange(20) < 3, 2, 99)})
    made = fslora(problem)
    seconds = solo_seconds(problem.clients, problem.system, rank_limit(problem))
    roomy = np.arange(20) >= 3
    order = np.argsort(seconds[roomy])
    assert np.all(np.diff(made.decision.sketch_rank[roomy][order]) <= 0)
    assert (
        made.decision.sketch_rank[roomy].max() == 16 and made.decision.sketch_rank[roomy].min() < 8
    )
    assert np.all(made.decision.sketch_rank[:3] <= 2)
    assert np.ptp(made.decision.sampling_probability) == 0


def test_icc24_is_exact_without_the_ranks():
    problem = some_problem(20, 9, columns={"max_rank": np.arange(1, 21)})
    made = icc24(problem)
    assert np.array_equal(made.decision.sketch_rank, np.minimum(np.arange(1, 21), 8))
    same = some_problem(20, 9, columns={"max_rank": np.ones(20)})
    np.testing.assert_allclose(
        icc24(same).decision.sampling_probability,
        exact(same).decision.sampling_probability,
        rtol=2e-3,
    )


@pytest.mark.parametrize("planner", [full, uniform, weighted, statistics, oort, fslora])
def test_energy_budgets_hold(planner):
    columns = {
        "step_joules": np.ones(8), "upload_joules_per_bit": np.full(8, 1e-6),
        "max_joules_per_round": np.linspace(0.1, 20, 8),
    }  # fmt: skip
    problem = some_problem(8, 3, columns=columns)
    made = planner(problem)
    limit = probability_limit(problem, made.decision.sketch_rank.astype(float))
    assert np.any(limit < 1) and np.all(made.decision.sampling_probability <= limit * (1 + 1e-12))


@pytest.mark.parametrize("planner", [uniform, weighted, oort, infocom22])
def test_the_p95_limit_holds(planner):
    free = some_problem(20, 3, system={"noise_ratio": 2.0})
    loose = planner(free)
    before = p95_seconds(
        free, loose.decision.participation_probability(), loose.decision.sketch_rank
    )
    problem = replace(free, p95_limit_seconds=0.7 * before, made={})
    made = planner(problem)
    after = p95_seconds(
        problem, made.decision.participation_probability(), made.decision.sketch_rank
    )
    assert made.verdict == "converged" and after <= 0.7 * before
    assert value_of(problem, made) >= value_of(free, loose)


def test_full_participation_cannot_keep_a_tight_p95_limit():
    free = some_problem(14, 3)
    problem = replace(free, p95_limit_seconds=0.5 * p95_seconds(free, np.ones(14), np.full(14, 8)))
    assert full(problem).verdict.startswith("infeasible: the p95 limit is exceeded at full")
