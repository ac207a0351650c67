"""What the rounds of a run have shown of its clients: seconds, links, answers, noise.

`watched` takes a round into account, `informed` says it as clients and system. A resumed run that
has the state goes on bit for bit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpace.core.plan import Plan
from fedpace.core.profile import Clients, Floats, System
from fedpace.core.record import LateRecord, ParticipantRecord, RoundRecord
from fedpace.estimation.client_means import (
    ClientMeans,
    fold,
    no_observations,
    shrunk,
    with_unseen,
)
from fedpace.estimation.noise_scale import NoiseScale
from fedpace.estimation.noise_state import NoiseState, grown_noise_state
from fedpace.wireless.channel import rate_bps, uplink
from fedpace.wireless.latency import download_bits, start_seconds
from fedpace.wireless.links import LINKS

__all__ = ["RenewalState", "grown", "informed", "overhead_seconds", "timed", "watched"]

MAX_RATIO = 1e3
"""A noise ratio beyond it plans as this one: the rounds are then proportional to V to 0.1 %."""


@dataclass(frozen=True, slots=True, eq=False)
class RenewalState:
    """What a run's renewals remember; a resumed run that has it goes on bit for bit."""

    noise: NoiseState
    start: ClientMeans
    """Observed over predicted seconds of download and local steps."""
    demand: ClientMeans
    """Predicted over observed spectral efficiency of the uplink."""
    invited: NDArray[np.int64]
    """How often each client was asked, shape (N,)."""
    answered: NDArray[np.int64]
    """How often it answered in time, shape (N,)."""
    overhead: ClientMeans = field(default_factory=partial(no_observations, 1))
    """Seconds of a round that were neither training nor transfer, where an engine observes them."""
    planned: int = 0
    """How often a new plan was computed."""
    switched: int = 0
    """How often it was taken."""

    def to_json(self) -> dict[str, Any]:
        """Return the state as JSON types."""
        parts = {n: getattr(self, n).to_json() for n in ("noise", "start", "demand", "overhead")}
        counts = {n: getattr(self, n).tolist() for n in ("invited", "answered")}
        return parts | counts | {"planned": self.planned, "switched": self.switched}

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> "RenewalState":
        """Rebuild a state from what `to_json` returned."""
        seen = table["start"]["observations"]
        return cls(
            noise=NoiseState.from_json(table["noise"]),
            start=ClientMeans.from_json(table["start"]),
            demand=ClientMeans.from_json(table["demand"]),
            # Checkpoints of earlier versions lack these.
            invited=np.asarray(table.get("invited", seen), dtype=np.int64),
            answered=np.asarray(table.get("answered", seen), dtype=np.int64),
            overhead=ClientMeans.from_json(table.get("overhead", no_observations(1).to_json())),
            planned=table["planned"],
            switched=table["switched"],
        )


def informed(
    state: RenewalState, clients: Clients, system: System, noise: NoiseScale, plan: Plan
) -> tuple[Clients, System]:
    """Return clients and system as the rounds have shown them, ready for a planner.

    Args:
        state: what was observed.
        clients: as profiled.
        system: as configured.
        noise: gives the noise ratio and Gamma_n.
        plan: in force; its mean load gives the share at which a Shannon link is matched.

    Returns:
        Clients with steps, downloads and links scaled by their factors and Gamma_n as estimated;
        the system with the measured noise ratio and overhead, or its own where nothing is measured
        yet.
    """
    seen = timed(state, clients, system, float(plan.participation_probability().sum()))
    columns: dict[str, Any] = dict(seen.columns())
    columns["update_second_moment"] = noise.update_second_moment
    ratio = system.noise_ratio if np.isnan(noise.ratio) else min(noise.ratio, MAX_RATIO)
    overhead = overhead_seconds(state, system)
    system = replace(system, noise_ratio=ratio, overhead_seconds=overhead)
    return Clients.from_columns(**columns), system


def overhead_seconds(state: RenewalState, system: System) -> float:
    """Return what a round costs besides training and transfer, as seen or else as configured, s."""
    seen = state.overhead
    return float(seen.mean[0]) if seen.observations[0] else system.overhead_seconds


def grown(state: RenewalState, data_weight: Floats) -> RenewalState:
    """Return the state once new clients stand behind the known ones, of whom it keeps all.

    Args:
        state: of the first clients.
        data_weight: a_n of all, shape (N,).
    """
    count = len(data_weight)
    none = np.zeros(count - len(state.invited), dtype=np.int64)
    return replace(
        state,
        noise=grown_noise_state(state.noise, data_weight),
        start=with_unseen(state.start, count),
        demand=with_unseen(state.demand, count),
        invited=np.append(state.invited, none),
        answered=np.append(state.answered, none),
    )


def timed(state: RenewalState, clients: Clients, system: System, participants: float) -> Clients:
    """Return the clients with steps, downloads and links as the rounds have shown them.

    Args:
        state: what was observed.
        clients: as profiled.
        system: as configured.
        participants: of a round, on average; a Shannon link is matched at their share.
    """
    columns: dict[str, Any] = dict(clients.columns())
    slower, weaker = (shrunk(m, state.noise.forget) for m in (state.start, state.demand))
    for name in ("step_seconds", "step_seconds_per_rank", "download_seconds"):
        columns[name] = columns[name] * slower
    # As wireless.channel.mean_faded: the efficiency at a typical share of the band.
    name, value = clients.link
    share = system.bandwidth_hz / max(1.0, participants)
    columns[name] = LINKS[name].divided(value, weaker, share)
    return Clients.from_columns(**columns)


def watched(
    state: RenewalState, record: RoundRecord, clients: Clients, system: System
) -> RenewalState:
    """Take who answered, and in how many seconds, into account."""
    # A late answer did not count, but it tells how slow its client is.
    people: list[ParticipantRecord | LateRecord] = [*record.participants, *record.late]
    index = np.array([p.client for p in people], dtype=np.int64)
    times = np.array([(p.start_seconds, p.upload_seconds) for p in people]).reshape(-1, 2)
    band = np.array([p.bandwidth_hz for p in people], dtype=np.float64)
    bits = 8 * np.array([p.upload_bytes for p in people], dtype=np.float64)
    rank = np.ones(len(clients))
    rank[index] = [p.sketch_rank for p in people]
    # The downlink is the system's and no fault of the client's.
    downlink = (download_bits(system, rank) / system.downlink_bps)[index]
    predicted = start_seconds(clients, system, rank)[index] - downlink
    expected_bps = rate_bps(band, **uplink(clients, index))
    with np.errstate(divide="ignore", invalid="ignore"):
        started = (times[:, 0] - downlink) / predicted
        demanded = expected_bps * times[:, 1] / bits

    def told(means: ClientMeans, seen: Floats) -> ClientMeans:
        says = np.isfinite(seen) & (seen > 0)
        return fold(means, index[says], seen[says], state.noise.forget)

    overhead = state.overhead
    if record.overhead_seconds is not None:
        seconds = np.array([max(record.overhead_seconds, 1e-6)])
        overhead = fold(overhead, np.array([0]), seconds, state.noise.forget)
    refused = [client for client, _ in record.refusals]
    in_time = [p.client for p in record.participants]
    answered = _counts([*in_time, *refused], len(clients))
    return replace(
        state,
        invited=state.invited + answered + _counts(record.missing, len(clients)),
        answered=state.answered + answered,
        start=told(state.start, started),
        demand=told(state.demand, demanded),
        overhead=overhead,
    )


def _counts(client: Sequence[int], num_clients: int) -> NDArray[np.int64]:
    return np.bincount(np.array(client, dtype=np.int64), minlength=num_clients)
