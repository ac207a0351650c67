r"""One uplink: rate for a bandwidth, bandwidth for a rate, path loss, and fading.

A link is described in one of two ways. Constant spectral efficiency e (bit/s/Hz): the rate is
e b. Shannon with a fixed transmit power: b log2(1 + snr_hz / b), where snr_hz = P g / N0 is the
signal power over the noise density, in Hz; more bandwidth then dilutes the power, and the rate
stays below snr_hz / ln 2. Decibels appear only in `path_loss_db` and `received_snr_hz`, the door.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from fedpace.core.errors import InputError
from fedpace.core.profile import Clients, Floats
from fedpace.core.rng import rng_for
from fedpace.wireless.shannon import solve_shannon

__all__ = [
    "GAIN_FLOOR",
    "bandwidth_for_rate",
    "bandwidth_slope",
    "faded",
    "fading_gains",
    "mean_faded",
    "path_loss_db",
    "rate_bps",
    "received_snr_hz",
    "uplink",
]

GAIN_FLOOR = 0.01
"""Least power gain of a fading block, -20 dB: below it a real scheduler would wait."""

_LN2 = float(np.log(2.0))


def rate_bps(
    bandwidth_hz: ArrayLike,
    *,
    spectral_efficiency: ArrayLike | None = None,
    snr_hz: ArrayLike | None = None,
) -> Floats:
    r"""Rate of a link: e b, or b log2(1 + snr_hz / b).

    Args:
        bandwidth_hz: b >= 0, Hz; any shape, broadcast against the link. May be infinite.
        spectral_efficiency: e, bit/s/Hz. Give this or `snr_hz`.
        snr_hz: P g / N0, Hz.

    Returns:
        The rate, bit/s.

    Example:
        >>> float(rate_bps(1e6, snr_hz=3e6))
        2000000.0
    """
    bandwidth = np.asarray(bandwidth_hz, dtype=np.float64)
    if _is_constant(spectral_efficiency, snr_hz):
        return bandwidth * np.asarray(spectral_efficiency, dtype=np.float64)
    bandwidth, snr = np.broadcast_arrays(bandwidth, np.asarray(snr_hz, dtype=np.float64))
    inside = (bandwidth > 0) & np.isfinite(bandwidth)
    b = np.where(inside, bandwidth, 1.0)
    ends = np.where(bandwidth > 0, snr / _LN2, 0.0)
    return np.where(inside, b * np.log1p(snr / b) / _LN2, ends)


def bandwidth_for_rate(
    rate_bps: ArrayLike,
    *,
    spectral_efficiency: ArrayLike | None = None,
    snr_hz: ArrayLike | None = None,
) -> Floats:
    r"""Bandwidth that gives a rate: the inverse of `rate_bps`.

    Relative error below 1e-13 for rates from 1e-6 to 1 - 1e-9 of the limit; see `shannon`.

    Args:
        rate_bps: >= 0, bit/s; any shape, broadcast against the link.
        spectral_efficiency: e, bit/s/Hz. Give this or `snr_hz`.
        snr_hz: P g / N0, Hz.

    Returns:
        b, Hz; infinite where a Shannon link cannot give the rate at any bandwidth
        (rate >= snr_hz / ln 2).

    Example:
        >>> bandwidth_for_rate([2e6, 5e6], snr_hz=3e6).round(3).tolist()
        [1000000.0, inf]
    """
    rate = np.asarray(rate_bps, dtype=np.float64)
    if _is_constant(spectral_efficiency, snr_hz):
        return rate / np.asarray(spectral_efficiency, dtype=np.float64)
    snr = np.asarray(snr_hz, dtype=np.float64)
    log_snr, _, inside = solve_shannon(rate, snr)
    bandwidth = snr * (np.exp(-log_snr) / -np.expm1(-log_snr))  # snr / (e^t - 1), no overflow
    return np.where(inside, bandwidth, np.where(rate > 0, np.inf, 0.0))


def bandwidth_slope(
    rate_bps: ArrayLike,
    *,
    spectral_efficiency: ArrayLike | None = None,
    snr_hz: ArrayLike | None = None,
) -> Floats:
    """Derivative of `bandwidth_for_rate` in the rate.

    Args:
        rate_bps: as for `bandwidth_for_rate`.
        spectral_efficiency: e, bit/s/Hz. Give this or `snr_hz`.
        snr_hz: P g / N0, Hz.

    Returns:
        d b / d rate, Hz per bit/s: 1/e, or 1 / (log2(1 + x) - x / ((1 + x) ln 2)) with
        x = snr_hz / b; infinite where the bandwidth is, 0 at rate 0 of a Shannon link.
    """
    rate = np.asarray(rate_bps, dtype=np.float64)
    if _is_constant(spectral_efficiency, snr_hz):
        slope = 1.0 / np.asarray(spectral_efficiency, dtype=np.float64)
        return np.broadcast_to(slope, np.broadcast_shapes(rate.shape, slope.shape)).copy()
    log_snr, gap, inside = solve_shannon(rate, np.asarray(snr_hz, dtype=np.float64))
    x = np.expm1(np.minimum(log_snr, 1.0))
    # Both are ln(1+x) - x/(1+x); each keeps its digits where the other cancels.
    nats = np.where(log_snr < 1, x * (x / (1 + x) - gap), log_snr + np.expm1(-log_snr))
    return np.where(inside, _LN2 / nats, np.where(rate > 0, np.inf, 0.0))


def path_loss_db(distance_km: ArrayLike) -> Floats:
    """Path loss of an urban macro cell at 2 GHz: 128.1 + 37.6 log10(d), dB (3GPP TR 36.814).

    Args:
        distance_km: d > 0, km.
    """
    return 128.1 + 37.6 * np.log10(np.asarray(distance_km, dtype=np.float64))


def received_snr_hz(
    distance_km: ArrayLike,
    shadowing_db: ArrayLike = 0.0,
    *,
    tx_power_dbm: float = 23.0,
    noise_dbm_per_hz: float = -174.0,
) -> Floats:
    """Signal power over noise density at the base station, P g / N0.

    Args:
        distance_km: from the base station, km.
        shadowing_db: loss besides the path's, dB.
        tx_power_dbm: of the client, dBm.
        noise_dbm_per_hz: noise density, dBm/Hz.

    Returns:
        Hz, linear scale.
    """
    loss = path_loss_db(distance_km) + np.asarray(shadowing_db, dtype=np.float64)
    return np.power(10.0, (tx_power_dbm - noise_dbm_per_hz - loss) / 10)


def uplink(clients: Clients, index: ArrayLike | slice = slice(None)) -> dict[str, Floats]:
    """Return the link of each client as the keyword argument of this room's functions.

    Args:
        clients: N clients.
        index: which of them; all by default.

    Example:
        >>> clients = Clients.from_columns(
        ...     data_weight=[1, 1], step_seconds=[1, 1], spectral_efficiency=[2, 4])
        >>> rate_bps(1e6, **uplink(clients, [1])).tolist()
        [4000000.0]
    """
    rows = index if isinstance(index, slice) else np.asarray(index, dtype=np.int64)
    if clients.spectral_efficiency is not None:
        return {"spectral_efficiency": clients.spectral_efficiency[rows]}
    assert clients.snr_hz is not None  # Clients has exactly one of the two
    return {"snr_hz": clients.snr_hz[rows]}


def fading_gains(seed: int, round_index: int, num_clients: int) -> Floats:
    """Draw the power gains of one round: Rayleigh block fading, mean 1, floored at `GAIN_FLOOR`.

    All N are drawn, so that a client's gain does not depend on who joins.

    Args:
        seed: the run's seed.
        round_index: 0, 1, 2, ...
        num_clients: N.

    Returns:
        g, shape (N,).
    """
    drawn = rng_for(seed, "fading", round_index).exponential(size=num_clients)
    return np.maximum(drawn, GAIN_FLOOR)


def faded(clients: Clients, gains: ArrayLike) -> Clients:
    """Return the clients as they are in a fading block.

    A gain g scales the signal: Shannon's snr_hz becomes g snr_hz, and a constant efficiency e,
    which stands for a signal-to-noise ratio 2^e - 1, becomes log2(1 + (2^e - 1) g).

    Args:
        clients: N clients.
        gains: g, shape (N,), above 0.

    Returns:
        The clients with those links; everything else as it was.
    """
    gain = np.asarray(gains, dtype=np.float64)
    if clients.spectral_efficiency is not None:
        return replace(clients, spectral_efficiency=_faded(clients.spectral_efficiency, gain))
    assert clients.snr_hz is not None
    return replace(clients, snr_hz=clients.snr_hz * gain)


def mean_faded(clients: Clients, share_hz: ArrayLike | None = None) -> Clients:
    r"""Return the clients with the links a planner should use where rounds fade.

    The link is the one whose demand t = bits / e equals the mean demand over fading:
    1/e = E[1/e'(g)] under the law of `fading_gains`. That is exact for constant efficiency. A
    Shannon link has no single demand, because its efficiency depends on its bandwidth: there the
    mean is taken at the bandwidth `share_hz`, that is with e = log2(1 + snr_hz / share_hz), and the
    result is the snr_hz that has the mean's efficiency at that share.

    Args:
        clients: N clients.
        share_hz: for Shannon links the bandwidth at which the two are matched, Hz, scalar or shape
            (N,): a typical share, the band over the expected number of participants.

    Returns:
        The clients with those links; everything else as it was.

    Raises:
        InputError: Shannon links and no `share_hz`.
    """
    if clients.spectral_efficiency is not None:
        return replace(clients, spectral_efficiency=_mean_faded(clients.spectral_efficiency))
    assert clients.snr_hz is not None
    if share_hz is None:
        raise InputError(
            "the clients have Shannon links (snr_hz) and share_hz is None; "
            "give the bandwidth of a typical participant, Hz"
        )
    share = np.asarray(share_hz, dtype=np.float64)
    mean = _mean_faded(np.log1p(clients.snr_hz / share) / _LN2)
    return replace(clients, snr_hz=share * np.expm1(mean * _LN2))


def _faded(efficiency: Floats, gain: Floats) -> Floats:
    """log2(1 + (2^e - 1) g), written so that g = 1 changes nothing and large e cannot overflow."""
    return efficiency + np.log1p((1 - gain) * np.expm1(-efficiency * _LN2)) / _LN2


def _mean_faded(efficiency: Floats) -> Floats:
    """1 / E[1/e'(g)] for exponential g floored at GAIN_FLOOR, by Gauss-Legendre in ln g."""
    low, high = np.log(GAIN_FLOOR), np.log(45.0)  # e^-45 is beyond double precision
    nodes, weights = np.polynomial.legendre.leggauss(64)
    gains = np.exp(low + (nodes + 1) / 2 * (high - low))
    mean: Floats = -np.expm1(-GAIN_FLOOR) / _faded(efficiency, np.asarray(GAIN_FLOOR))
    # One node at a time: a million clients need no (N, 64) array.
    for gain, weight in zip(
        gains, weights * (high - low) / 2 * gains * np.exp(-gains), strict=True
    ):
        mean += weight / _faded(efficiency, gain)
    return 1 / mean


def _is_constant(efficiency: ArrayLike | None, snr_hz: ArrayLike | None) -> bool:
    if (efficiency is None) == (snr_hz is None):
        found = "neither" if snr_hz is None else "both"
        raise InputError(f"a link needs spectral_efficiency or snr_hz, one of them; got {found}")
    return efficiency is not None
