"""A plan: who takes part how often, and at what rank."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fedpace.core.errors import InputError
from fedpace.core.profile import Floats

Schedule = Literal["synchronous", "overlapping"]
"""Whether a round begins when the last one has ended, or rounds overlap."""
ScheduleChoice = Literal["synchronous", "overlapping", "auto"]
"""A schedule, or whichever is predicted to be faster."""


@dataclass(frozen=True, slots=True)
class RoundSeconds:
    """Predicted duration of a round, s."""

    mean: float
    p50: float
    p95: float


@dataclass(frozen=True, slots=True)
class StalenessSeconds:
    """How long before it is aggregated an update was begun, over all updates, s."""

    mean: float
    p95: float


@dataclass(frozen=True, slots=True, eq=False)
class Decision:
    """What a planner chooses; entry n is client n. A new decision variable has its place here."""

    sampling_probability: Floats
    """q_n, shape (N,), in (0, 1]. With `draws` set: the chance of one draw, sums to 1."""
    sketch_rank: NDArray[np.int64]
    """k_n, shape (N,), in 1..r."""
    draws: int | None = None
    """None: clients join independently. K: K draws with replacement (INFOCOM 2022)."""
    beat_seconds: float | None = None
    """None: synchronous rounds, each ends with its last upload. D: rounds overlap, and the server
    moves every D seconds."""
    aggregation_weight: Floats | None = None
    """p_n, each client's share of the mean that the server moves along, shape (N,), sums to 1.
    None: its share of the data, so that the mean has no bias."""

    def __post_init__(self) -> None:
        beat = self.beat_seconds
        if beat is not None and not 0 < beat < np.inf:
            raise InputError(f"beat_seconds is {beat!r}; give a finite time above 0, or none")
        for array in (self.sampling_probability, self.sketch_rank, self.aggregation_weight):
            if array is not None:
                array.setflags(write=False)

    def __len__(self) -> int:
        return len(self.sampling_probability)

    @property
    def schedule(self) -> Schedule:
        """How rounds follow each other."""
        return "synchronous" if self.beat_seconds is None else "overlapping"

    def participation_probability(self) -> Floats:
        """Return each client's chance to be asked in a round, or at a beat if idle, shape (N,)."""
        if self.draws is None:
            return self.sampling_probability
        with np.errstate(divide="ignore"):
            absent = np.log1p(-self.sampling_probability)
        return np.asarray(-np.expm1(self.draws * absent))


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """One decision, and what the planner predicts of it; entry n is client n."""

    planner: str
    """Name of the planner that made it."""
    client_id: NDArray[np.str_]
    decision: Decision
    verdict: str = "converged"
    """How the planner ended: "converged", or why not, for people to read."""
    round_seconds: RoundSeconds | None = None
    """How long a synchronous round takes."""
    relative_rounds: float = np.nan
    """Rounds, or beats, as a multiple of the rounds of full participation at full rank."""
    objective_seconds: float = np.nan
    """round_seconds.mean * relative_rounds, or beat_seconds * relative_rounds, s."""
    quantile: float | None = None
    """Quantile of the round time that was minimised in place of its mean; None: the mean was."""
    quantile_seconds: float = np.nan
    """That quantile of the round time * relative_rounds, s; NaN without one."""
    updates_per_second: Floats | None = None
    """How often an update of each client is aggregated, shape (N,), 1/s."""
    staleness_seconds: StalenessSeconds | None = None
    band_utilisation: float = np.nan
    """Share of the time in which the uplink is in use, in [0, 1]."""
    limit_seconds: float = np.nan
    """What no scheme with these shares of the mean could fall below on this band, to compare
    `objective_seconds` with, s."""
    gain: Mapping[str, float] = field(default_factory=dict)
    """Best objective of other planners over this one's, by planner; above 1 is a gain. Objective is
    `quantile_seconds` where a quantile was minimised, else `objective_seconds`."""
    binds: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    """Which limit holds which client, by limit ("q at 1", "rank at memory", ...), shape (N,)."""
    statistics: Mapping[str, float] = field(default_factory=dict)
    """What the planner counted and measured on the way: iterations, seconds, KKT residual."""

    def __post_init__(self) -> None:
        q, k = self.sampling_probability, self.sketch_rank
        wrong = ~((q > 0) & (q <= 1))
        if np.any(wrong):
            n = int(np.argmax(wrong))
            raise InputError(
                f"sampling_probability of client {str(self.client_id[n])!r} is {q[n]:g}; every "
                "client needs a value in (0, 1], or its inverse weight is undefined. "
                "Drop the client instead."
            )
        if np.any(k < 1):
            n = int(np.argmax(k < 1))
            raise InputError(
                f"sketch_rank of client {str(self.client_id[n])!r} is {k[n]}; the least is 1"
            )
        self.client_id.setflags(write=False)

    def __len__(self) -> int:
        return len(self.decision)

    @property
    def sampling_probability(self) -> Floats:
        """Return the decision's q_n, shape (N,)."""
        return self.decision.sampling_probability

    @property
    def sketch_rank(self) -> NDArray[np.int64]:
        """Return the decision's k_n, shape (N,)."""
        return self.decision.sketch_rank

    @property
    def draws(self) -> int | None:
        """Return the decision's number of draws with replacement, if it draws."""
        return self.decision.draws

    @property
    def beat_seconds(self) -> float | None:
        """Return the decision's beat, s, if its rounds overlap."""
        return self.decision.beat_seconds

    @property
    def aggregation_weight(self) -> Floats | None:
        """Return the decision's p_n, shape (N,); None where it is the share of the data."""
        return self.decision.aggregation_weight

    @property
    def schedule(self) -> Schedule:
        """Say how rounds follow each other."""
        return self.decision.schedule

    def participation_probability(self) -> Floats:
        """Return each client's chance to be asked in a round, or at a beat if idle, shape (N,)."""
        return self.decision.participation_probability()

    def updates_per_beat(self) -> Floats | None:
        """Return how many updates of each client are to count in a beat, shape (N,).

        None where rounds wait, or nothing is predicted.
        """
        if self.updates_per_second is None or self.beat_seconds is None:
            return None
        return self.updates_per_second * self.beat_seconds

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON types, with the keys `fedpace plan --json` prints."""
        seconds, stale, rates = (
            self.round_seconds, self.staleness_seconds, self.updates_per_second,
        )  # fmt: skip
        weight = self.aggregation_weight
        return {
            "planner": self.planner,
            "verdict": self.verdict,
            "client_id": self.client_id.tolist(),
            "sampling_probability": self.sampling_probability.tolist(),
            "sketch_rank": self.sketch_rank.tolist(),
            "draws": self.draws,
            "schedule": self.schedule,
            "beat_seconds": self.beat_seconds,
            "aggregation_weight": None if weight is None else weight.tolist(),
            "round_seconds": None
            if seconds is None
            else {"mean": seconds.mean, "p50": seconds.p50, "p95": seconds.p95},
            "relative_rounds": _number(self.relative_rounds),
            "objective_seconds": _number(self.objective_seconds),
            "quantile": self.quantile,
            "quantile_seconds": _number(self.quantile_seconds),
            "updates_per_second": None if rates is None else [_number(rate) for rate in rates],
            "staleness_seconds": None if stale is None else {"mean": stale.mean, "p95": stale.p95},
            "band_utilisation": _number(self.band_utilisation),
            "limit_seconds": _number(self.limit_seconds),
            "gain": {name: _number(value) for name, value in self.gain.items()},
            "binds": {name: np.flatnonzero(mask).tolist() for name, mask in self.binds.items()},
            "statistics": {name: _number(value) for name, value in self.statistics.items()},
        }

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> "Plan":
        """Rebuild a plan from what `to_json` returned."""
        seconds, count = table["round_seconds"], len(table["client_id"])
        # Plans of earlier versions lack these.
        rates, stale = table.get("updates_per_second"), table.get("staleness_seconds")
        weight = table.get("aggregation_weight")
        binds = {}
        for name, rows in table["binds"].items():
            binds[name] = np.zeros(count, dtype=np.bool_)
            binds[name][rows] = True
        return cls(
            planner=table["planner"],
            verdict=table["verdict"],
            client_id=np.asarray(table["client_id"], dtype=np.str_),
            decision=Decision(
                np.asarray(table["sampling_probability"], dtype=np.float64),
                np.asarray(table["sketch_rank"], dtype=np.int64),
                table["draws"],
                table.get("beat_seconds"),
                None if weight is None else np.asarray(weight, dtype=np.float64),
            ),
            round_seconds=None if seconds is None else RoundSeconds(**seconds),
            relative_rounds=_float(table["relative_rounds"]),
            objective_seconds=_float(table["objective_seconds"]),
            quantile=table.get("quantile"),
            quantile_seconds=_float(table.get("quantile_seconds")),
            updates_per_second=None if rates is None else np.array([_float(r) for r in rates]),
            staleness_seconds=None if stale is None else StalenessSeconds(**stale),
            band_utilisation=_float(table.get("band_utilisation")),
            limit_seconds=_float(table.get("limit_seconds")),
            gain={name: _float(value) for name, value in table["gain"].items()},
            binds=binds,
            statistics={name: _float(value) for name, value in table["statistics"].items()},
        )


def _number(value: float) -> float | None:
    """JSON has no NaN."""
    return float(value) if np.isfinite(value) else None


def _float(value: float | None) -> float:
    return np.nan if value is None else float(value)


Plans = Sequence[tuple[int, Plan]]
"""Plans with the round from which each was in force, ascending; the first from round 0."""
