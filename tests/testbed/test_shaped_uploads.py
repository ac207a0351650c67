"""The kernel's classes against the formula, with bytes over TCP."""

import numpy as np
import pytest

from fedpace.core.profile import Clients, System
from fedpace.testbed.links import client, limit_link
from fedpace.testbed.shaper import Shaper
from fedpace.testbed.traces import Trace, follow
from fedpace.testbed.uploads import uploaders
from fedpace.wireless.bandwidth import allocate_bandwidth
from fedpace.wireless.network import Network
from testbed.shaped import needs_kernel

pytestmark = needs_kernel
WHO, BITS, BAND = np.arange(3), 8.0 * np.array([100_000, 150_000, 200_000]), 2e6
START = np.array([0.0, 0.3, 1.8])


@pytest.fixture(scope="module")
def network():
    with uploaders(3) as made:
        yield made


def played(network, efficiency, rule, start=START):
    """Ends of three uploads as the kernel gave them, and the rates assigned."""
    clients = Clients.from_columns(
        data_weight=[1] * 3, step_seconds=[1] * 3, spectral_efficiency=efficiency
    )
    shaper = Shaper(network.classes, Network(clients, System(BAND, 4, allocation=rule)), seed=0)
    share = allocate_bandwidth(start, BITS, BAND, spectral_efficiency=efficiency, rule=rule)
    rates = BITS / (share.finish_seconds - start)
    passages = network.round(shaper, 0, WHO, start, (BITS / 8).astype(int), rates)
    return np.array([p.sent_at - p.assigned_at for p in passages]), share.finish_seconds


def about(ends, predicted):
    """No earlier than the classes allow, and later only by what a busy machine adds."""
    ratio = np.asarray(ends) / predicted
    return np.all(ratio > 0.93) and np.all(ratio < 1.3)


def busy_band(efficiency, start=START):
    """When a band that never idles has done all work: T = max over n of what comes from n on."""
    work = BITS / np.array(efficiency) / BAND
    return max(start[n] + work[start >= start[n]].sum() for n in range(3))


@pytest.mark.slow
def test_clients_of_unequal_links_end_together_under_equal_finish(network):
    ends, predicted = played(network, [1.0, 0.5, 4.0], "equal-finish")
    assert np.ptp(predicted) < 1e-6
    assert about(ends, predicted)
    assert np.ptp(ends) < 0.25 * ends.max()


@pytest.mark.slow
def test_equal_shares_stay_equal_when_others_are_done(network):
    ends, predicted = played(network, [1.0, 0.5, 4.0], "equal-share")
    assert about(ends, predicted)


@pytest.mark.slow
@pytest.mark.parametrize("efficiency", [[1.0, 0.5, 4.0], [1.0, 1.0, 1.0]])
def test_a_band_that_never_idles_ends_when_its_work_is_done(network, efficiency):
    """Where a hertz is worth the same everywhere the kernel lends, elsewhere the shaper does."""
    ends, _ = played(network, efficiency, "work-conserving")
    assert about(ends.max(), busy_band(efficiency))
    fixed, _ = played(network, efficiency, "equal-share")
    assert fixed.max() > 1.15 * ends.max()


@pytest.mark.slow
def test_a_clients_own_link_that_changes_holds_it_back_whatever_its_class_has(network):
    trace = {0: Trace((0.0, 60.0), (2e5, 4e5))}
    set_to: dict[int, float] = {}
    for seconds, rate in ((1.0, 2e5), (61.0, 4e5)):
        follow(network.run, trace, seconds, set_to)
        ends, predicted = played(network, [1.0, 1.0, 1.0], "equal-share", np.zeros(3))
        assert about(ends[0], BITS[0] / rate)
        assert about(ends[1:], predicted[1:])
    limit_link(client(network.run, 0).space, "eth0", None)
    ends, predicted = played(network, [1.0, 1.0, 1.0], "equal-share", np.zeros(3))
    assert about(ends, predicted)
