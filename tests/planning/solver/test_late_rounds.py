"""Few clients under a p95 limit: held against differential evolution and plain listing."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import differential_evolution

from fedpace.core.plan import Decision
from fedpace.planning.exact import exact
from fedpace.planning.round_time.distribution import round_time
from fedpace.planning.solver.late_rounds import LateRounds, are_few, best_in_time
from fedpace.planning.solver.limits import p95_seconds
from fedpace.planning.solver.objective import log_objective
from planning.some_problems import some_clients, some_problem, value_of

SYSTEM = {"overhead_seconds": 2.0, "allocation": "work-conserving"}


def limited(count, seed, part, **limits):
    """A problem whose limit is a part of the way from the overhead to the p95 of all, always."""
    free = some_problem(count, seed, rank=4, system=SYSTEM, **limits)
    longest = p95_seconds(free, np.ones(count), np.full(count, 4.0))
    return replace(free, p95_limit_seconds=2.0 + part * (longest - 2.0), made={})


def test_the_chance_of_late_rounds_and_its_slopes_are_those_of_listed_sets():
    joined = np.array([[True, False, True], [True, True, True]])
    late = LateRounds(joined, np.array([1.0, 0.5, 0.8]), 0.05)
    q = np.array([0.3, 0.6, 0.2])
    excess, slope = late.excess(q)
    assert np.exp(excess) * 0.05 == pytest.approx(0.3 * 0.16)
    np.testing.assert_allclose(slope, [1.0, 0.0, 1.0], atol=1e-12)


def test_only_few_clients_with_a_limit_are_listed():
    assert are_few(limited(3, 0, 0.5))
    assert not are_few(some_problem(3)) and not are_few(limited(13, 0, 0.5))


@pytest.mark.parametrize("seed", range(2))
def test_a_plan_keeps_the_limit_as_it_is_stated_and_uses_it(seed):
    problem = limited(3, seed, 0.5)
    start = np.full(3, 0.5), np.full(3, 4.0)
    best = best_in_time(problem, [start], move_ranks=False)
    law = round_time(Decision(best.q, best.k.astype(int)), problem.clients, problem.system)
    late = 1 - float(law.cdf(problem.p95_limit_seconds))
    assert 0.045 < late <= 0.05 + 1e-12


def test_none_is_returned_where_no_ranks_keep_the_limit():
    problem = some_problem(3, q_min=0.5, p95_limit_seconds=0.6)
    assert best_in_time(problem, [(np.ones(3), np.full(3, 8.0))], move_ranks=True) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seed", "part", "quantile"), [(0, 0.3, None), (1, 0.5, None), (2, 0.7, None), (1, 0.5, 0.6)]
)
def test_differential_evolution_finds_nothing_better(seed, part, quantile):
    problem = limited(3, seed, part, quantile=quantile)
    most = np.full(3, 4.0)

    def value(z):
        seconds = p95_seconds(problem, np.exp(z), most)
        if seconds > problem.p95_limit_seconds:
            return 20 + seconds
        return log_objective(problem, Decision(np.exp(z), most.astype(int)))

    theirs = differential_evolution(
        value, [(np.log(problem.q_min), 0.0)] * 3, seed=seed, maxiter=30, popsize=10, polish=False
    )
    assert value_of(problem, exact(problem)) <= theirs.fun + 0.01


@pytest.mark.slow
def test_a_looser_limit_makes_no_plan_worse():
    tight = [limited(3, 5, part) for part in (0.2, 0.35, 0.5, 0.7, 0.95)]
    values = [value_of(problem, exact(problem)) for problem in tight]
    assert np.all(np.diff(values) <= 1e-3)


def test_a_client_that_is_seldom_there_may_be_asked_more_often():
    q, k = np.full(3, 0.5), np.full(3, 4.0)
    problem = limited(3, 0, 0.4)
    rare = replace(problem, clients=some_clients(3, 0, rank=4, availability=np.full(3, 0.5)))
    always, seldom = (best_in_time(p, [(q, k)], move_ranks=False) for p in (problem, rare))
    assert seldom.q.sum() > always.q.sum()
