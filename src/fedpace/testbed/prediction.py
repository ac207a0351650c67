"""What was predicted of each round beside what was measured, by client and for the round."""

from collections.abc import Iterable, Sequence

import numpy as np
from rich.table import Table

from fedpace.core.profile import Floats
from fedpace.core.record import RoundRecord
from fedpace.core.times import ClientTimes, RoundTimes
from fedpace.reporting.measured import errors
from fedpace.testbed.shaper import Passage
from fedpace.wireless.bandwidth import allocate_bandwidth
from fedpace.wireless.channel import faded, fading_gains, uplink
from fedpace.wireless.network import Network


def round_times(
    network: Network, seed: int, record: RoundRecord, passages: Iterable[Passage]
) -> RoundTimes:
    """Hold a round against the virtual clock.

    Args:
        network: of the run.
        seed: of its fading.
        record: of a round that somebody answered.
        passages: that were seen so far, of whichever rounds, in their order: the last one of a
            client in a round of this number is of this round.
    """
    mine = {p.client: p for p in passages if p.round_index == record.round}
    start, finish = predicted(network, seed, record)
    rows = []
    for i, p in enumerate(record.participants):
        passage = mine[p.client]
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


def overlaps(record: RoundRecord) -> bool:
    """Say whether somebody answered what it was asked in an earlier round."""
    return any(p.started_round not in (-1, record.round) for p in record.participants)


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
