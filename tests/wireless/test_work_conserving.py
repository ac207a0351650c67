"""The band that never idles, against closed forms, random divisions and a convex programme."""

import numpy as np
import pytest
from scipy.optimize import minimize

from fedpace.wireless.bandwidth import allocate_bandwidth
from fedpace.wireless.channel import rate_bps

BAND = 1e6


def drawn(count, kind, seed, limits=False):
    """Starts, bits, link and limits of a round: computation and uploads of about equal weight."""
    rng = np.random.default_rng(seed)
    start, bits = rng.lognormal(0, 1, count), 3e5 * rng.lognormal(0, 1, count)
    link = {
        "spectral_efficiency": rng.lognormal(1, 0.7, count),
        "snr_hz": BAND * np.exp(rng.uniform(np.log(0.1), np.log(300), count)),
    }[kind]
    own = BAND * np.exp(rng.uniform(np.log(0.05), np.log(2), count)) if limits else None
    return start, bits, {kind: link}, own


def divided(start, bits, link, own=None, rule="work-conserving"):
    return allocate_bandwidth(start, bits, BAND, **link, max_bandwidth_hz=own, rule=rule)


def served_in_turn(start, seconds):
    """max_j (tau_j + sum over tau_i >= tau_j of t_i / W)."""
    return max(tau + seconds[start >= tau].sum() for tau in start)


@pytest.mark.parametrize("count", [1, 2, 5, 40, 300])
def test_at_constant_efficiency_the_makespan_is_the_formula(count):
    start, bits, link, _ = drawn(count, "spectral_efficiency", count)
    seconds = bits / link["spectral_efficiency"] / BAND
    made = divided(start, bits, link)
    assert made.round_seconds == pytest.approx(served_in_turn(start, seconds), rel=1e-12)
    # What is recorded of the band is its mean while sending.
    sent = made.bandwidth_hz * link["spectral_efficiency"] * (made.finish_seconds - start)
    np.testing.assert_allclose(sent, bits, rtol=1e-9)


@pytest.mark.parametrize(
    "seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (2, 3, 4))]
)
def test_no_random_division_is_earlier(seed):
    """A thousand orders and shares, each followed exactly from event to event."""
    count = 6
    start, bits, link, _ = drawn(count, "spectral_efficiency", seed)
    best = divided(start, bits, link).round_seconds
    rng = np.random.default_rng(seed)
    for _ in range(1000):
        weight = rng.lognormal(0, rng.choice([0.1, 3.0]), count)  # nearly even, or nearly in turn
        idles = rng.random() < 0.3
        assert _followed(start, bits, link["spectral_efficiency"], weight, idles) >= best * (
            1 - 1e-12
        )


def _followed(start, bits, efficiency, weight, idles):
    """The makespan where the ready share by weight, of all weights or of those that are ready."""
    left, now = bits / efficiency, 0.0
    while np.any(left > 0):
        ready = (start <= now) & (left > 0)
        later = start[start > now]
        gap = later.min() - now if len(later) else np.inf
        share = np.where(ready, weight, 0.0) * BAND
        share /= weight.sum() if idles else max(share.sum() / BAND, 1e-300)
        with np.errstate(divide="ignore", invalid="ignore"):
            step = min(gap, np.min(np.where(ready, left / share, np.inf)))
        left = np.where(left - share * step <= 1e-12 * bits / efficiency, 0.0, left - share * step)
        now += step
    return now


def test_limits_that_do_not_bind_change_nothing():
    """The event by event way, which limits need, against the way in turn."""
    start, bits, link, _ = drawn(30, "spectral_efficiency", 3)
    wide, narrow = np.full(30, 2 * BAND), np.append(np.full(29, 2 * BAND), BAND * (1 - 1e-12))
    one, two = divided(start, bits, link, wide), divided(start, bits, link, narrow)
    np.testing.assert_allclose(two.finish_seconds, one.finish_seconds, rtol=1e-9)


CONVEX = [("spectral_efficiency", True), ("snr_hz", False), ("snr_hz", True)]


@pytest.mark.parametrize(("kind", "limits"), CONVEX)
def test_with_limits_and_shannon_links_it_is_close_to_the_convex_optimum(kind, limits):
    gaps = []
    for seed in range(30):
        given = drawn(2 + seed % 7, kind, seed, limits)
        ours = divided(*given)
        if limits:
            assert np.all(ours.bandwidth_hz <= np.minimum(given[3], BAND) * (1 + 1e-9))
        least = _least(*given, ours.round_seconds)
        gaps.append(ours.round_seconds / least - 1)
    print(f"gap to the optimum, {kind}, limits {limits}: worst {max(gaps):.4%}")
    assert min(gaps) > -1e-6 and max(gaps) <= 0.01


def _least(start, bits, link, own, guess):
    """The convex programme over the intervals between the starts: SciPy's SLSQP, M <= 8.

    Unknowns: T, and the share of the band of client n in interval i.
    """
    order = np.argsort(start)
    start, bits, ((kind, column),) = start[order], bits[order], link.items()
    column, count = column[order], len(start)
    cap = np.full(count, BAND) if own is None else np.minimum(own[order], BAND)
    pairs = np.array([(n, i) for n in range(count) for i in range(n, count)])
    client, interval = pairs.T
    last, unit = interval == count - 1, guess - start[0]

    def rates(x):
        return rate_bps(np.maximum(x[1:], 1e-9) * BAND, **{kind: column[client]})

    def lengths(x):
        return np.append(np.diff(start), x[0] * unit + start[0] - start[-1])[interval]

    def spare(x):  # bits sent beyond those that are due, relative
        return np.bincount(client, rates(x) * lengths(x), count) / bits - 1

    def spare_slope(x):
        jacobian, step = np.zeros((count, len(x))), 1e-6
        slope = (rates(x + np.append(0, np.full(len(pairs), step))) - rates(x)) / step
        jacobian[client, 1 + np.arange(len(pairs))] = slope * lengths(x) / bits[client]
        jacobian[client[last], 0] = rates(x)[last] * unit / bits[client[last]]
        return jacobian

    used = np.zeros((count, 1 + len(pairs)))
    used[interval, 1 + np.arange(len(pairs))] = 1
    even = np.minimum(0.98 / (interval + 1), cap[client] / BAND)
    end = minimize(
        lambda x: x[0], np.append(1.02, even), jac=lambda x: np.eye(1, len(x))[0], method="SLSQP",
        bounds=[((start[-1] - start[0]) / unit, None), *((0, c / BAND) for c in cap[client])],
        constraints=[
            {"type": "ineq", "fun": spare, "jac": spare_slope},
            {"type": "ineq", "fun": lambda x: 1 - used @ x, "jac": lambda x: -used},
        ],
        options={"maxiter": 500, "ftol": 1e-11},
    )  # fmt: skip
    assert spare(end.x).min() > -1e-6 and (used @ end.x).max() < 1 + 1e-6, "no feasible optimum"
    return end.x[0] * unit + start[0]


@pytest.mark.parametrize("kind", ["spectral_efficiency", "snr_hz"])
def test_all_who_start_together_finish_together(kind):
    _, bits, link, _ = drawn(20, kind, 1)
    together = np.full(20, 0.7)
    one, two = (divided(together, bits, link, rule=r) for r in ("work-conserving", "equal-finish"))
    np.testing.assert_allclose(one.finish_seconds, two.finish_seconds, rtol=1e-12)
    np.testing.assert_allclose(one.bandwidth_hz, two.bandwidth_hz, rtol=1e-9)


@pytest.mark.parametrize("kind", ["spectral_efficiency", "snr_hz"])
@pytest.mark.parametrize("limits", [False, True])
def test_it_is_never_later_than_a_static_division(kind, limits):
    for seed in range(20):
        given = drawn(12, kind, seed, limits)
        ours = divided(*given).round_seconds
        for rule in ("equal-finish", "equal-share"):
            assert ours <= divided(*given, rule=rule).round_seconds * (1 + 1e-9)


def test_what_a_client_at_its_limit_leaves_goes_to_the_others():
    """Two at once: one can use a fifth of the band; the other has the rest, and is done first."""
    made = divided([0.0, 0.0], [2e6, 4e6], {"spectral_efficiency": 1.0}, [0.2 * BAND, BAND])
    np.testing.assert_allclose(made.finish_seconds, [10.0, 5.0])
    np.testing.assert_allclose(made.bandwidth_hz, [0.2 * BAND, 0.8 * BAND])


def test_a_late_start_does_not_hold_the_band_for_itself():
    """The first has the whole band until the second is ready, by hand."""
    made = divided([0.0, 1.0, 9.0], [2e6, 1e6, 0.0], {"spectral_efficiency": 1.0})
    np.testing.assert_allclose(made.finish_seconds, [3.0, 3.0, 9.0])
    np.testing.assert_allclose(made.bandwidth_hz, [2 / 3 * BAND, 0.5 * BAND, 0.0])


def test_nobody_sends_nothing():
    made = divided([], [], {"spectral_efficiency": 1.0})
    assert made.round_seconds == 0 and len(made.finish_seconds) == 0
