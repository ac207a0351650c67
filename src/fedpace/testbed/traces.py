"""Links that change: the rate of a device's own link over time, from a file."""

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fedpace.core.errors import InputError
from fedpace.run_folder.atomic import write_text
from fedpace.testbed import links

COLUMNS = ("client", "time_seconds", "rate_bps")


@dataclass(frozen=True, slots=True)
class Trace:
    """A client's link: from each time on, the rate beside it."""

    time_seconds: tuple[float, ...]
    """Ascending, from the first task on."""
    rate_bps: tuple[float, ...]
    """Rate of the payload."""

    def at(self, seconds: float) -> float | None:
        """Return the rate in force, bit/s; None before the first time."""
        rate = None
        for time, value in zip(self.time_seconds, self.rate_bps, strict=True):
            if time > seconds:
                break
            rate = value
        return rate


def read_traces(path: Path, clients: int) -> Mapping[int, Trace]:
    """Read a trace file: CSV with the columns client, time_seconds, rate_bps.

    Args:
        path: of the file; `client` is a position, 0 to `clients` - 1; rows in any order.
        clients: how many there are.

    Raises:
        InputError: a value, with its line.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--links {path} cannot be read ({error}); give a CSV file") from None
    rows = list(csv.DictReader(text.splitlines()))
    names = tuple(rows[0]) if rows else ()
    if set(names) != set(COLUMNS):
        raise InputError(f"--links {path} has the columns {', '.join(map(str, names)) or 'none'}; "
                         f"it needs {', '.join(COLUMNS)}, and a row at least")  # fmt: skip
    found: dict[int, list[tuple[float, float]]] = {}
    for line, row in enumerate(rows, start=2):
        try:
            client = int(row["client"])
            time, rate = float(row["time_seconds"]), float(row["rate_bps"])
        except (TypeError, ValueError):
            raise InputError(f"--links {path}, line {line}: {list(row.values())} is not a client, "
                             "a time and a rate") from None  # fmt: skip
        if not 0 <= client < clients:
            raise InputError(f"--links {path}, line {line}: client {client} is not one of 0 to "
                             f"{clients - 1}")  # fmt: skip
        if not (0 <= time < math.inf and 8 <= rate < math.inf):
            raise InputError(f"--links {path}, line {line}: time {time:g} s, rate {rate:g} bit/s; "
                             "times are from 0 s on, rates 8 bit/s or more")  # fmt: skip
        found.setdefault(client, []).append((time, rate))
    return {n: Trace(*zip(*sorted(points), strict=True)) for n, points in found.items()}


def write_traces(path: Path, traces: Mapping[int, Trace]) -> None:
    """Write a trace file that `read_traces` reads to the same."""
    rows = [
        f"{n},{time!r},{rate!r}\n"
        for n, trace in traces.items()
        for time, rate in zip(trace.time_seconds, trace.rate_bps, strict=True)
    ]
    write_text(path, "".join([",".join(COLUMNS) + "\n", *rows]))


def follow(run: str, traces: Mapping[int, Trace], seconds: float, before: dict[int, float]) -> None:
    """Set the links that follow a trace to what they have after so many seconds.

    Args:
        run: the testbed's name.
        traces: by client.
        seconds: since the beginning.
        before: what each was set to last, bit/s; brought up to date.
    """
    for n, trace in traces.items():
        rate = trace.at(seconds)
        if rate is not None and rate != before.get(n):
            links.limit_link(links.client(run, n).space, "eth0", rate)
            before[n] = rate
