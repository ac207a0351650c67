"""Links that change within a round: their law, and who is served by them."""

import numpy as np
import pytest

from fedpace.core.errors import InputError
from fedpace.core.profile import Clients, System
from fedpace.wireless.gain_trace import GainTrace
from fedpace.wireless.gains import MarkovGains, TraceGains
from fedpace.wireless.network import Network, charge
from fedpace.wireless.service import Sending, serve, serve_changing

BY_TURNS = GainTrace("turns.csv", np.arange(4.0), np.array([0.5, 1.5, 0.5, 1.5]), 4.0)
TWO = Clients.from_columns(data_weight=[1, 1], step_seconds=[1, 1], spectral_efficiency=[2.0, 2.0])


def test_markov_gains_have_mean_1_their_deviation_and_their_memory():
    gains = MarkovGains(3, 400, 4.0, 2.0)
    seen = np.array([gains.at(float(t))[0] for t in np.arange(0, 200, 2.0)])
    decibels = 10 * np.log10(seen)
    assert seen.mean() == pytest.approx(1, abs=0.03)
    assert decibels.std() == pytest.approx(4, rel=0.03)
    x = (decibels - decibels.mean()) / decibels.std()
    assert (x[1:] * x[:-1]).mean() == pytest.approx(np.exp(-1), abs=0.03)
    assert abs((x[:, 1:] * x[:, :-1]).mean()) < 0.03  # other clients'


def test_gains_are_a_function_of_seed_and_time():
    gains = MarkovGains(3, 5, 4.0, 2.0)
    late, until = gains.at(7.3)
    early = gains.at(0.6)[0]
    assert until == 7.5 and np.array_equal(gains.at(7.49)[0], late)
    assert not np.array_equal(gains.at(7.5)[0], late)
    assert np.array_equal(MarkovGains(3, 5, 4.0, 2.0).at(7.3)[0], late)
    assert np.array_equal(MarkovGains(3, 5, 4.0, 2.0).at(0.6)[0], early)
    assert not np.array_equal(MarkovGains(4, 5, 4.0, 2.0).at(7.3)[0], late)


def test_a_trace_is_followed_from_each_clients_place_and_once_around():
    gains = TraceGains(BY_TURNS, np.array([0.0, 3.25]), 1.0)
    gain, until = gains.at(0.5)
    assert gain.tolist() == [0.5, 1.5] and until == 0.75
    assert gains.at(0.75)[0].tolist() == [0.5, 0.5]
    with pytest.raises(InputError, match=r"'turns.csv' ends after 4 s and the run is at 4 s"):
        gains.at(4.0)
    drawn = TraceGains.drawn(BY_TURNS, 1, 1000, 1.0)
    assert drawn.begins.mean() == pytest.approx(2, abs=0.15)
    assert np.array_equal(drawn.begins, TraceGains.drawn(BY_TURNS, 1, 1000, 1.0).begins)


def test_who_stands_best_is_served_first():
    """Client 0 is at half its rate, then at one and a half times it; client 1 the other way."""
    gains = TraceGains(BY_TURNS, np.array([0.0, 1.0]), 1.0)
    both = [Sending(0, 0.0, 3.0), Sending(1, 0.0, 3.0)]

    def arrivals(best_first):
        served, then = serve_changing(
            both, TWO, gains, 1.0, now=0.0, until=np.inf, arrivals=2, best_first=best_first
        )
        assert then == max(u.arrived_seconds for u in served)
        return [u.arrived_seconds for u in served]

    # First come: 1 bit and 2 at 3 bit/s; then a third of a bit until 2 s, the rest at 3 bit/s.
    assert arrivals(False) == pytest.approx([5 / 3, 2 + 8 / 9])
    # Best first: in each second the one who sends 3 bits in it.
    assert arrivals(True) == pytest.approx([2.0, 1.0])


def test_links_that_hold_still_are_served_as_ever():
    still = GainTrace("still.csv", np.arange(10.0), np.ones(10), 10.0)
    gains = TraceGains(still, np.array([0.3, 0.7]), 1.0)
    both = [Sending(0, 1.0, 4.0), Sending(1, 2.0, 3.0)]
    for until, arrivals in ((3.5, None), (np.inf, 2), (8.0, 1)):
        ours = serve_changing(both, TWO, gains, 1.0, now=0.0, until=until, arrivals=arrivals)
        theirs = serve(both, TWO, 1.0, now=0.0, until=until, arrivals=arrivals)
        assert ours[1] == pytest.approx(theirs[1])
        for a, b in zip(ours[0], theirs[0], strict=True):
            assert a.bits_left == pytest.approx(b.bits_left)
            assert a.arrived_seconds == (
                b.arrived_seconds if b.arrived_seconds is None else pytest.approx(b.arrived_seconds)
            )


def test_a_round_is_charged_at_the_links_of_its_time():
    system = System(bandwidth_hz=1.0, lora_rank=4, local_steps=1, allocation="work-conserving")
    network = Network(TWO, system, gains=TraceGains(BY_TURNS, np.zeros(2), 1.0))
    sent = [np.array([1]), np.array([4]), np.array([3.0]), np.zeros(1)]
    # Ready at 1 s on the clock: 3 bits in a second. At 2 s: 1 bit, then two thirds of a second.
    for now, seconds in ((0.0, 1 + 1), (1.0, 1 + 1 + 2 / 3)):
        start, share = charge(network, 0, 0, *sent, now=now)
        assert start.tolist() == [1.0]
        assert share.round_seconds == pytest.approx(seconds)
    with pytest.raises(InputError, match="virtual clock alone"):
        charge(network, 0, 0, *sent)


def test_where_the_least_that_is_left_goes_first():
    """At 1 bit/s: 9 bits are there at once, 3 at 1 s and 2 at 2 s."""
    three = Clients.from_columns(
        data_weight=[1] * 3, step_seconds=[1] * 3, spectral_efficiency=[1.0] * 3
    )
    uploads = [Sending(0, 0.0, 9.0), Sending(1, 1.0, 3.0), Sending(2, 2.0, 2.0)]

    def arrivals(**order):
        state, _ = serve(uploads, three, 1.0, now=0.0, until=np.inf, **order)
        return [u.arrived_seconds for u in state]

    # 1 sends from 1 s and has as much left as 2 needs when 2 comes, and was there before.
    assert arrivals(shortest_first=True) == pytest.approx([14.0, 4.0, 6.0])
    assert arrivals() == pytest.approx([9.0, 12.0, 14.0])


def test_what_is_left_is_counted_in_seconds_at_the_present_gain():
    uploads = [Sending(0, 0.0, 4.0), Sending(1, 0.0, 3.0)]
    state, _ = serve(uploads, TWO.with_link("spectral_efficiency", np.array([4.0, 1.0])), 1.0,
                     now=0.0, until=np.inf, shortest_first=True)  # fmt: skip
    assert [u.arrived_seconds for u in state] == pytest.approx([1.0, 4.0])
