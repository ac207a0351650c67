"""What the shaper makes of the events of a round, without a kernel."""

import numpy as np
import pytest

from fedpace.core.profile import Clients, System
from fedpace.testbed.band import SIGNALLING_BPS
from fedpace.testbed.classes import Count, gross
from fedpace.testbed.shaper import Shaper
from fedpace.wireless.network import Network


class Classes:
    """Remembers what it was set to; its counters are told."""

    def __init__(self, count):
        self.root, self.leaves, self.sent, self.backlog = 0.0, {}, [0] * count, [0] * count

    def change(self, root_bps, leaves):
        assert sum(leaf.rate_bps for leaf in leaves.values()) <= root_bps * (1 + 1e-9)
        self.root, self.leaves = root_bps, dict(leaves)

    def count(self):
        return [Count(s, 0, 0, b) for s, b in zip(self.sent, self.backlog, strict=True)]

    def hertz(self, efficiency):
        """Of each client that has more than signalling."""
        return {
            n: leaf.rate_bps / gross(1.0) / efficiency[n]
            for n, leaf in self.leaves.items()
            if leaf.rate_bps != SIGNALLING_BPS
        }


EFFICIENCY = [1.0, 2.0, 4.0]


def shaper(rule, fading=False, **columns):
    clients = Clients.from_columns(
        data_weight=[1] * 3, step_seconds=[1] * 3, spectral_efficiency=EFFICIENCY, **columns
    )
    network = Network(clients, System(1e6, 4, allocation=rule, fading=fading))
    return Shaper(Classes(3), network, 0, clock=iter(range(1000)).__next__)


def test_an_upload_keeps_its_gain_when_a_later_round_begins():
    made = shaper("work-conserving", fading=True)
    made.assign(0, [(0, 1.0)])
    made.fetched(0)
    made.send(0, 100_000, 0.0)
    alone = made.classes.leaves[0].rate_bps
    made.assign(1, [(2, 1.0)])
    made.fetched(2)  # it trains: the band is of client 0 alone again
    assert made.classes.leaves[0].rate_bps == alone
    made.assign(2, [(0, 1.0)])
    made.fetched(0)
    made.send(0, 100_000, 0.0)
    assert made.classes.leaves[0].rate_bps != alone


def test_a_band_that_never_idles_is_of_those_who_send():
    made = shaper("work-conserving")
    made.assign(0, [(0, 1.0), (2, 1.0)])
    assert sum(made.classes.hertz(EFFICIENCY).values()) == pytest.approx(1e6)
    made.fetched(0)
    assert made.classes.hertz(EFFICIENCY) == {2: pytest.approx(1e6)}
    made.fetched(2)
    assert made.classes.hertz(EFFICIENCY) == {}
    made.send(2, 100_000, 0.0)
    assert made.classes.hertz(EFFICIENCY) == {2: pytest.approx(1e6)}
    made.classes.sent[2] = round(gross(50_000))
    made.send(0, 50_000, 0.0)
    # Both have as many bits left, and a bit of client 0 takes four times the band.
    shares = made.classes.hertz(EFFICIENCY)
    assert shares[0] == pytest.approx(0.8e6, rel=1e-3)
    assert shares[2] == pytest.approx(0.2e6, rel=1e-3)
    made.classes.sent[2] = round(gross(100_000))
    made.look()
    assert made.classes.hertz(EFFICIENCY) == {0: pytest.approx(1e6)}
    made.arrive([0, 2])
    assert made.classes.hertz(EFFICIENCY) == {}
    assert not made.sending


def test_an_upload_has_passed_when_its_bytes_have_and_its_queue_is_empty():
    made = shaper("equal-finish")
    made.assign(0, [(1, 1e5)])
    made.fetched(1)
    made.classes.sent[1] = 5000
    made.send(1, 10_000, 0.0)
    made.classes.sent[1], made.classes.backlog[1] = 5000 + round(gross(10_000)), 1514
    made.look()
    assert made.sending
    made.classes.backlog[1] = 0
    made.look()
    assert not made.sending
    assert made.passages[0].wire_bytes == round(gross(10_000))


def test_fixed_rates_stay_through_a_round_whoever_sends():
    made = shaper("equal-finish")
    made.assign(0, [(0, 0.4e6), (1, 1.2e6)])
    before = made.classes.hertz(EFFICIENCY)
    made.fetched(0)
    made.send(0, 1000, 0.0)
    assert made.classes.hertz(EFFICIENCY) == before == {0: pytest.approx(0.4e6),
                                                        1: pytest.approx(0.6e6)}  # fmt: skip


def test_who_is_late_keeps_its_part_of_the_band_in_the_next_round():
    made = shaper("equal-share")
    made.assign(0, [(0, 0.5e6), (1, 1e6)])
    made.arrive([1])
    made.assign(1, [(1, 1e6), (2, 2e6)])  # the whole band, as the server sees it
    assert made.classes.hertz(EFFICIENCY) == pytest.approx(dict.fromkeys(range(3), 1e6 / 3))
    made.arrive([0])
    assert made.classes.hertz(EFFICIENCY) == pytest.approx({1: 0.5e6, 2: 0.5e6})


def test_nobody_sends_over_its_own_limit_where_the_band_never_idles():
    made = shaper("work-conserving", max_bandwidth_hz=[2e5, np.inf, np.inf])
    made.assign(0, [(0, 1.0), (1, 1.0)])
    shares = made.classes.hertz(EFFICIENCY)
    assert shares[0] == pytest.approx(2e5)
    assert shares[1] == pytest.approx(8e5)
