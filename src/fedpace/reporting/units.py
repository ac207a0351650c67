"""Numbers for people: 12 min 30 s, 14.2 MB, 1.9×."""

import math

_BYTES = ("B", "kB", "MB", "GB", "TB", "PB")
_RATES = ("bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s")


def seconds_text(seconds: float | None) -> str:
    """Write a duration, two units at most.

    Example:
        >>> [seconds_text(s) for s in (0.0123, 45.21, 750, 3900, 93600)]
        ['0.0123 s', '45.2 s', '12 min 30 s', '1 h 05 min', '1 d 2 h']
    """
    if seconds is None:
        return "–"
    if seconds < 59.95:
        return f"{seconds:#.3g} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24} h"


def bits_text(bits: float | None) -> str:
    """Write an amount of data in bytes, three digits.

    Example:
        >>> [bits_text(b) for b in (0, 8 * 999.6, 8 * 14.23e6)]
        ['0 B', '1.00 kB', '14.2 MB']
    """
    if bits is None:
        return "–"
    amount, unit = bits / 8, 0
    while float(f"{amount:.3g}") >= 1000 and unit < len(_BYTES) - 1:
        amount, unit = amount / 1000, unit + 1
    return f"{amount:.0f} B" if unit == 0 else f"{amount:#.3g}".rstrip(".") + f" {_BYTES[unit]}"


def rate_text(bits_per_second: float | None) -> str:
    """Write the rate of a link, three digits.

    Example:
        >>> [rate_text(r) for r in (850.0, 1.234e6, 5e9)]
        ['850 bit/s', '1.23 Mbit/s', '5.00 Gbit/s']
    """
    if bits_per_second is None or not math.isfinite(bits_per_second):
        return "–"
    amount, unit = bits_per_second, 0
    while float(f"{amount:.3g}") >= 1000 and unit < len(_RATES) - 1:
        amount, unit = amount / 1000, unit + 1
    return f"{amount:#.3g}".rstrip(".") + f" {_RATES[unit]}"


def share_text(value: float | None) -> str:
    """Write an accuracy or a loss, three decimals."""
    return "–" if value is None else f"{value:.3f}"


def ratio_text(ratio: float | None) -> str:
    """Write a ratio: 1.04×, 1.9×, 12×."""
    if ratio is None:
        return "–"
    return f"{ratio:.{2 if ratio < 1.095 else 1 if ratio < 9.95 else 0}f}×"


def target_text(target: str | None) -> str:
    """Write a target of the experiment file for people: accuracy ≥ 0.85, unbroken."""
    return (target or "").replace(">=", "\u00a0≥\u00a0").replace("<=", "\u00a0≤\u00a0")
