import numpy as np
import pytest

from fedpace.core.errors import RunError
from fedpace.core.profile import Clients
from fedpace.testbed.band import SIGNALLING_BPS, assigned, borrowing, split
from fedpace.testbed.classes import gross
from fedpace.wireless.bandwidth import allocate_bandwidth

EFFICIENCY = [0.5, 1.0, 2.0, 5.0]


def four(efficiency=EFFICIENCY, **columns):
    return Clients.from_columns(
        data_weight=[1] * 4, step_seconds=[1] * 4, spectral_efficiency=efficiency, **columns
    )


def total(shares):
    return sum(leaf.rate_bps for leaf in shares.leaves.values())


def test_the_rates_of_an_allocation_become_those_of_classes_that_borrow_nothing():
    clients, start = four(), np.array([0.0, 1.0, 2.0, 3.0])
    share = allocate_bandwidth(start, 4e6, 1e6, spectral_efficiency=EFFICIENCY, rule="equal-finish")
    rates = 4e6 / (share.finish_seconds - start)
    made = assigned(dict(enumerate(rates)), clients, 1e6)
    for n in range(4):
        assert made.leaves[n].rate_bps == made.leaves[n].ceil_bps == gross(rates[n])
    assert total(made) <= made.root_bps


def test_rates_that_need_more_than_the_band_are_refused():
    with pytest.raises(RunError, match=r"clients 0, 3 .*2e\+06 Hz of a band of 1.5e\+06 Hz"):
        assigned({0: 0.5e6, 3: 5e6}, four(), 1.5e6)


def test_who_sends_shares_the_whole_band_and_would_end_together_whatever_a_hertz_is_worth():
    made = split({0: 1e5, 3: 3e5}, four(), 1e6)
    rates = np.array([made.leaves[n].rate_bps for n in (0, 3)]) / gross(1.0)
    assert rates[1] == pytest.approx(3 * rates[0])
    assert rates[0] / 0.5 + rates[1] / 5.0 == pytest.approx(1e6)
    assert made.leaves[1].rate_bps == SIGNALLING_BPS
    assert total(made) <= made.root_bps


def test_what_a_client_cannot_use_goes_to_the_others():
    clients = four(max_bandwidth_hz=[0.1e6, np.inf, np.inf, np.inf])
    made = split(dict.fromkeys(range(4), 1e5), clients, 1e6)
    assert made.leaves[0].rate_bps == pytest.approx(gross(0.5 * 0.1e6))
    rates = [made.leaves[n].rate_bps / gross(1.0) for n in (1, 2, 3)]
    assert np.array(rates) == pytest.approx(0.9e6 / (1 / 1 + 1 / 2 + 1 / 5))


def test_links_of_one_efficiency_are_one_root_from_which_classes_borrow():
    clients = four([2.0] * 4, max_bandwidth_hz=[np.inf, np.inf, np.inf, 0.25e6])
    made = borrowing(np.array([0, 1]), clients, 1e6, 2.0)
    assert made.root_bps == gross(2e6)
    assert total(made) == pytest.approx(made.root_bps)
    assert made.leaves[0].ceil_bps == made.leaves[2].ceil_bps == gross(2e6)
    assert made.leaves[3].ceil_bps == gross(0.5e6)
