"""A plan: who takes part how often, and at what rank."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpace.core.errors import InputError
from fedpace.core.profile import Floats


@dataclass(frozen=True, slots=True)
class RoundSeconds:
    """Predicted duration of a round, s."""

    mean: float
    p50: float
    p95: float


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """One decision per client, and what the planner predicts of it; entry n is client n."""

    planner: str
    """Name of the planner that made it."""
    client_id: NDArray[np.str_]
    sampling_probability: Floats
    """q_n, shape (N,), in (0, 1]. With `draws` set: the chance of one draw, sums to 1."""
    sketch_rank: NDArray[np.int64]
    """k_n, shape (N,), in 1..r."""
    draws: int | None = None
    """None: clients join independently. K: K draws with replacement (INFOCOM 2022)."""
    verdict: str = "converged"
    """How the planner ended: "converged", or why not, for people to read."""
    round_seconds: RoundSeconds | None = None
    relative_rounds: float = np.nan
    """Rounds as a multiple of full participation at full rank."""
    objective_seconds: float = np.nan
    """round_seconds.mean * relative_rounds, s."""
    gain: Mapping[str, float] = field(default_factory=dict)
    """Best objective of other planners over this one's, by planner; above 1 is a gain."""
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
        for array in (self.client_id, q, k):
            array.setflags(write=False)

    def __len__(self) -> int:
        return len(self.sampling_probability)

    def participation_probability(self) -> Floats:
        """Return each client's chance to be in a round, shape (N,)."""
        if self.draws is None:
            return self.sampling_probability
        return 1.0 - (1.0 - self.sampling_probability) ** self.draws

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON types, with the keys `fedpace plan --json` prints."""
        seconds = self.round_seconds
        return {
            "planner": self.planner,
            "verdict": self.verdict,
            "client_id": self.client_id.tolist(),
            "sampling_probability": self.sampling_probability.tolist(),
            "sketch_rank": self.sketch_rank.tolist(),
            "draws": self.draws,
            "round_seconds": None
            if seconds is None
            else {"mean": seconds.mean, "p50": seconds.p50, "p95": seconds.p95},
            "relative_rounds": _number(self.relative_rounds),
            "objective_seconds": _number(self.objective_seconds),
            "gain": {name: _number(value) for name, value in self.gain.items()},
            "binds": {name: np.flatnonzero(mask).tolist() for name, mask in self.binds.items()},
            "statistics": {name: _number(value) for name, value in self.statistics.items()},
        }

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> "Plan":
        """Rebuild a plan from what `to_json` returned."""
        seconds, count = table["round_seconds"], len(table["client_id"])
        binds = {}
        for name, rows in table["binds"].items():
            binds[name] = np.zeros(count, dtype=np.bool_)
            binds[name][rows] = True
        return cls(
            planner=table["planner"],
            verdict=table["verdict"],
            client_id=np.asarray(table["client_id"], dtype=np.str_),
            sampling_probability=np.asarray(table["sampling_probability"], dtype=np.float64),
            sketch_rank=np.asarray(table["sketch_rank"], dtype=np.int64),
            draws=table["draws"],
            round_seconds=None if seconds is None else RoundSeconds(**seconds),
            relative_rounds=_float(table["relative_rounds"]),
            objective_seconds=_float(table["objective_seconds"]),
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
