"""What was predicted of each round beside what was measured, by client and for the round."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from fedpace.core.profile import Floats
from fedpace.core.record import RoundRecord
from fedpace.experiment.config import Experiment
from fedpace.run_folder.atomic import write_text
from fedpace.run_folder.reader import read_records
from fedpace.testbed.run import network_in
from fedpace.testbed.shaper import Passage, Shaper
from fedpace.wireless.bandwidth import allocate_bandwidth
from fedpace.wireless.channel import faded, fading_gains, uplink
from fedpace.wireless.network import Network

FILE = "testbed.jsonl"


@dataclass(frozen=True, slots=True)
class ClientTimes:
    """One client in one round; s from the start of the round, by the machine's clock."""

    client: int
    rate_bps: float
    predicted_start: float
    predicted_finish: float
    fetched: float | None
    """The task is with the client."""
    start: float | None
    """It begins to send."""
    sent: float | None
    """The last of its answer passed the access point."""
    finish: float | None
    """The server has its answer."""
    upload_bytes: int
    wire_bytes: int
    overrun_seconds: float


@dataclass(frozen=True, slots=True)
class RoundTimes:
    """One round."""

    method: str
    round: int
    predicted_seconds: float
    """What the virtual clock says, with these participants: T and [network] overhead_seconds."""
    transfer_seconds: float
    """T alone."""
    measured_seconds: float
    clients: tuple[ClientTimes, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON types."""
        return asdict(self)

    @property
    def finish_spread(self) -> float | None:
        """Latest less earliest end of an upload over the round's seconds; None for one client."""
        sent = [c.sent for c in self.clients if c.sent is not None]
        return (max(sent) - min(sent)) / self.measured_seconds if len(sent) > 1 else None


def compare(experiment: Experiment, folder: Path, shaper: Shaper) -> list[RoundTimes]:
    """Hold every round of a run against the virtual clock.

    Args:
        experiment: of the run.
        folder: of the run.
        shaper: that saw it.
    """
    network, found = network_in(experiment, folder), []
    passages = iter(shaper.passages)
    for record in read_records(folder):
        if not record.participants:
            continue
        asked = {p.client for p in record.participants} | set(record.missing)
        asked |= {client for client, _ in record.refusals}
        mine: dict[int, Passage] = {}
        for passage in passages:
            if passage.round_index == record.round and passage.client in asked:
                mine[passage.client] = passage
            if {p.client for p in record.participants} <= set(mine):
                break
        found.append(_round(experiment, network, record, mine))
    return found


def _round(
    experiment: Experiment, network: Network, record: RoundRecord, passages: Mapping[int, Passage]
) -> RoundTimes:
    start, finish = predicted(network, experiment.seed, record)
    rows = []
    for i, p in enumerate(record.participants):
        passage = passages[p.client]
        zero = passage.assigned_at

        def since(moment: float | None, zero: float = zero) -> float | None:
            return None if moment is None else moment - zero

        rows.append(
            ClientTimes(
                p.client, passage.rate_bps, float(start[i]), float(finish[i]),
                since(passage.fetched_at), since(passage.sending_at), since(passage.sent_at),
                since(passage.arrived_at), p.upload_bytes, passage.wire_bytes,
                passage.overrun_seconds,
            )
        )  # fmt: skip
    return RoundTimes(
        record.method, record.round, float(finish.max()) + network.system.overhead_seconds,
        float(finish.max()), record.round_seconds, tuple(rows),
    )  # fmt: skip


def predicted(network: Network, seed: int, record: RoundRecord) -> tuple[Floats, Floats]:
    """Return when each participant starts to send and ends, on the virtual clock, s."""
    clients, system, people = network.clients, network.system, record.participants
    who = np.array([p.client for p in people])
    rank = np.array([p.sketch_rank for p in people])
    down = 8.0 * np.array([p.download_bytes for p in people]) / system.downlink_bps
    step = clients.step_seconds[who] + rank * clients.step_seconds_per_rank[who]
    start = clients.download_seconds[who] + down + system.local_steps * step
    if network.fading:
        clients = faded(clients, fading_gains(seed, record.round, len(clients)))
    share = allocate_bandwidth(
        start, 8.0 * np.array([p.upload_bytes for p in people]), system.bandwidth_hz,
        **uplink(clients, who), max_bandwidth_hz=clients.max_bandwidth_hz[who],
        rule=network.allocation,
    )  # fmt: skip
    return start, share.finish_seconds


def write_comparison(folder: Path, rounds: Sequence[RoundTimes]) -> None:
    """Write testbed.jsonl: a line for each round."""
    lines = [json.dumps(each.to_json(), allow_nan=False) + "\n" for each in rounds]
    write_text(folder / FILE, "".join(lines))


def prediction_table(rounds: Sequence[RoundTimes]) -> Table:
    """Return a table of how far the prediction was off, by method."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("method", "rounds", "mean s", "predicted", "p95 s", "predicted", "error",
                   "learned", "spread", "late"):  # fmt: skip
        table.add_column(column, justify="left" if column == "method" else "right")
    table.caption = (
        "error: median, of a round; learned: with the overhead of the rounds before in place of "
        "[network] overhead_seconds; spread: of the ends of uploads, over the round's seconds; "
        "late: clients that this machine trained slower than their profile"
    )
    for method in dict.fromkeys(each.method for each in rounds):
        row = errors([each for each in rounds if each.method == method])
        table.add_row(
            method, str(int(row["rounds"])), f"{row['measured_mean']:.2f}",
            f"{row['predicted_mean']:.2f}", f"{row['measured_p95']:.2f}",
            f"{row['predicted_p95']:.2f}", f"{row['median_error']:.1%}",
            f"{row['median_error_learned']:.1%}", f"{row['median_spread']:.1%}",
            f"{row['late']:.1%}",
        )  # fmt: skip
    return table


def errors(rounds: Sequence[RoundTimes]) -> dict[str, float]:
    """Return how far predictions were off: means and 95 % quantiles, s; errors and spread, shares.

    "learned" takes the median of what the rounds before took beyond T, in the first round nothing.
    """
    measured = np.array([each.measured_seconds for each in rounds])
    clock = np.array([each.predicted_seconds for each in rounds])
    beyond = measured - np.array([each.transfer_seconds for each in rounds])
    learned = np.array([np.median(beyond[:i]) if i else 0.0 for i in range(len(beyond))])
    late = [c.overrun_seconds > 0 for each in rounds for c in each.clients]
    spread = [s for each in rounds if (s := each.finish_spread) is not None]
    return {
        "rounds": float(len(rounds)),
        "measured_mean": float(measured.mean()),
        "predicted_mean": float(clock.mean()),
        "measured_p95": float(np.quantile(measured, 0.95)),
        "predicted_p95": float(np.quantile(clock, 0.95)),
        "median_error": float(np.median(np.abs(clock - measured) / measured)),
        "median_error_learned": float(np.median(np.abs(learned - beyond) / measured)),
        "median_spread": float(np.median(spread)) if spread else float("nan"),
        "late": float(np.mean(late)),
    }
