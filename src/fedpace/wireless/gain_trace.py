"""A recorded link: its rate over time, from a file of the user's.

Two formats. CSV with the columns time (s) and rate (in any unit: only its changes count), a rate
holding until the next time. Mahimahi's: one whole number a line, the millisecond in which the link
could carry one more packet (Netravali et al., USENIX ATC 2015); counted in tenths of a second.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedpace.core.errors import InputError
from fedpace.core.profile import Floats
from fedpace.core.text_files import csv_rows, read_text, shortened

__all__ = ["GainTrace", "read_gain_trace"]

_MOST_BYTES = 1 << 28
"""A longer file is no trace."""
_LONGEST_STEP = 10.0
"""A step of time longer than so many usual ones is a gap."""
_BIN_SECONDS = 0.1
"""In which the packets of a Mahimahi trace are counted."""


@dataclass(frozen=True, slots=True, eq=False)
class GainTrace:
    """A rate over its mean, constant between times."""

    source: str
    """The file, for messages."""
    seconds: Floats
    """When each begins to hold, ascending from 0, shape (M,), s."""
    gain: Floats
    """The rate over its mean in time, shape (M,), >= 0."""
    length_seconds: float
    """Where the last one ends, s."""

    def at(self, seconds: Floats) -> Floats:
        """Return the gain at times in [0, length), of their shape."""
        return np.asarray(self.gain[np.searchsorted(self.seconds, seconds, side="right") - 1])


def read_gain_trace(path: Path) -> GainTrace:
    """Read a trace.

    Args:
        path: of a CSV file with the columns time and rate, or of a Mahimahi trace.

    Raises:
        InputError: it cannot be read, a value is wrong, or there is a gap; names file, line, value
            and remedy.
    """
    text = read_text(path, "a trace: CSV with time,rate, or Mahimahi's", max_bytes=_MOST_BYTES)
    lines = text.splitlines()
    if any("," in line for line in lines[:2]):
        times, rates = _from_csv(path, lines)
    else:
        times, rates = _from_packets(path, lines)
    usual = float(np.median(np.diff(times)))
    length = float(times[-1] + usual)
    mean = float(rates @ np.diff(times, append=length)) / length
    if mean <= 0:
        raise InputError(f"{path}: every rate is 0; give a trace of a link that carries something")
    return GainTrace(str(path), times, rates / mean, length)


def _from_csv(path: Path, lines: list[str]) -> tuple[Floats, Floats]:
    times: list[float] = []
    rates: list[float] = []
    reader = csv_rows(lines)
    try:
        header = [name.strip() for name in next(reader, [])]
        if header != ["time", "rate"]:
            raise InputError(
                f"{path}, line 1: the columns are {shortened(', '.join(header))}; name them "
                "time,rate"
            )
        for row in reader:
            if not row:
                continue
            where = f"{path}, line {reader.line_num}"
            if len(row) != 2:
                text = shortened(",".join(row))
                cells = "one cell" if len(row) == 1 else f"{len(row)} cells"
                raise InputError(
                    f"{where}: {text} is {cells}; write time,rate: two numbers and one comma "
                    "between, a point for decimals"
                )
            time, rate = (_number(where, name, row[i]) for i, name in enumerate(header))
            if rate < 0:
                raise InputError(f"{where}: rate is {rate:g}; give 0 or more")
            if times and time <= times[-1]:
                raise InputError(f"{where}: time is {time:g} after {times[-1]:g}; sort by time")
            times.append(time)
            rates.append(rate)
    except csv.Error as error:
        raise InputError(
            f"{path}, line {reader.line_num}: not CSV ({error}); check quotes and commas"
        ) from None
    if len(times) < 2:
        raise InputError(f"{path}: {len(times)} lines below the header; give two at least")
    step = np.diff(times)
    usual = float(np.median(step))
    if np.any(step > _LONGEST_STEP * usual):
        i = int(np.argmax(step > _LONGEST_STEP * usual))
        raise InputError(
            f"{path}: nothing from time {times[i]:g} to {times[i + 1]:g}, where the usual step is "
            f"{usual:g} s; fill the gap, or cut the trace there"
        )
    return np.array(times) - times[0], np.array(rates)


def _number(where: str, name: str, cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise InputError(f"{where}: {name} is {shortened(cell)}; give a number")
    return value


def _from_packets(path: Path, lines: list[str]) -> tuple[Floats, Floats]:
    moments: list[int] = []
    for number, line in enumerate(lines, 1):
        word = line.strip()
        if not word:
            continue
        if not (word.isascii() and word.isdigit() and len(word) < 16):
            raise InputError(
                f"{path}, line {number}: {shortened(word)} is no whole number of milliseconds; "
                "give one a line (Mahimahi), or CSV with a header time,rate"
            )
        if moments and int(word) < moments[-1]:
            raise InputError(f"{path}, line {number}: {word} after {moments[-1]}; sort by time")
        moments.append(int(word))
    bins = int(moments[-1] / (1e3 * _BIN_SECONDS)) + 1 if moments else 0
    if not 2 <= bins <= _MOST_BYTES:
        raise InputError(
            f"{path}: the packets span {bins * _BIN_SECONDS:g} s; give a trace of a second or more"
        )
    place = np.array(moments) // round(1e3 * _BIN_SECONDS)
    count = np.bincount(place, minlength=bins).astype(np.float64)
    return np.arange(bins, dtype=np.float64) * _BIN_SECONDS, count
