"""The clients as the planner of overlapping rounds sees them: times, energy, worth."""

import numpy as np
import pytest

from fedpace.planning.overlap.fleet import fleet_of
from fedpace.wireless.bandwidth import allocate_bandwidth
from fedpace.wireless.channel import uplink
from fedpace.wireless.latency import start_seconds, upload_bits
from planning.some_problems import some_clients, some_system


def test_alone_a_client_is_done_when_the_allocator_says():
    system = some_system(6)
    clients = some_clients(6, max_bandwidth_hz=system.bandwidth_hz * np.linspace(0.2, 2, 6))
    fleet, rank = fleet_of(clients, system), np.arange(1.0, 7.0)
    done = fleet.ready_seconds(rank) + fleet.work_seconds(rank) + fleet.lag_seconds(rank)
    start, bits = start_seconds(clients, system, rank), upload_bits(system, rank)
    for n in range(6):
        alone = allocate_bandwidth(
            start[[n]], bits[[n]], system.bandwidth_hz,
            max_bandwidth_hz=clients.max_bandwidth_hz[[n]], **uplink(clients, [n]),
        ).round_seconds  # fmt: skip
        assert done[n] == pytest.approx(system.overhead_seconds + alone)
    narrow = clients.max_bandwidth_hz < system.bandwidth_hz
    np.testing.assert_array_equal(fleet.lag_seconds(rank) > 0, narrow)


def test_energy_pays_for_so_many_updates():
    clients = some_clients(
        3, step_joules=np.array([0.0, 1.0, 1.0]), upload_joules_per_bit=np.array([0.0, 0.0, 1e-6]),
        max_joules_per_round=np.array([1.0, 2.0, 20.0]),
    )  # fmt: skip
    # 5 steps; 4 Mbit and 1 Mbit for each rank component.
    rank = np.full(3, 3.0)
    often = fleet_of(clients, some_system(3)).most_often(rank, 7.0)
    assert often.tolist() == [np.inf, pytest.approx(2 / 5), pytest.approx(20 / (5 + 4 + 3))]
    # The energy of a round of 8 s is a quarter of it in a beat of 2 s.
    of_round = fleet_of(clients, some_system(3), round_seconds=8.0)
    np.testing.assert_allclose(of_round.most_often(rank, 2.0), often / 4)
