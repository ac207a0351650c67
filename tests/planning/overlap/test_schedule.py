"""A schedule: its decisions with the law and the cost that `schedule_cost` has for them."""

import numpy as np

from fedpace.planning.overlap.fleet import fleet_of
from fedpace.planning.overlap.objective import schedule_cost
from fedpace.planning.overlap.schedule import scheduled
from fedpace.planning.overlap.step import THETA
from planning.some_problems import some_clients, some_system


def test_a_schedule_costs_what_its_decisions_do_at_whole_ranks():
    clients, system = some_clients(5, 1), some_system(5)
    q = np.array([1.0, 0.5, 0.2, 0.9, 0.1])
    made = scheduled(fleet_of(clients, system), q, np.array([0.2, 2.4, 7.6, 8.0, 3.0]), 6.0, THETA)
    assert made.sketch_rank.tolist() == [1, 2, 8, 8, 3] and made.verdict == "converged"
    cost, law = schedule_cost(q, made.sketch_rank.astype(np.float64), 6.0, clients, system)
    assert made.cost == cost
    np.testing.assert_array_equal(made.law.age_beats, law.age_beats)
