"""What a run folder holds: the names of its files, and the records that they become."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fedpace.core.adapter import Array
from fedpace.core.plan import Plans
from fedpace.core.profile import Clients, Floats
from fedpace.core.record import RoundRecord
from fedpace.core.target import Target
from fedpace.core.times import RoundTimes

EXPERIMENT = "experiment.toml"
CLIENTS = "clients.csv"
ESTIMATES = "estimates.csv"
"""The clients as the rounds have shown them."""
PLAN = "plan.json"
ROUNDS = "rounds.jsonl"
SUMMARY = "summary.json"
REPORT = "report.html"
ADAPTER = "adapter"
CHECKPOINT = "checkpoint"
TENSORBOARD = "tensorboard"
MLFLOW = "mlflow.json"
TESTBED = "testbed.jsonl"
"""Predicted and measured times of each round; of a run on a testbed."""
LINKS = "links.csv"
"""How links change; of a run on a testbed that was given such a file."""
LOCK = ".lock"
"""Locked by the process that writes the folder, and names it."""

FILES = (EXPERIMENT, CLIENTS, PLAN, ROUNDS, SUMMARY)
"""What a report needs of a run folder."""

CHECKPOINT_FORMAT = "fedpace-checkpoint-2"


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """Everything one method needs to go on: arrays, and JSON for the rest."""

    adapter: Mapping[str, Array]
    optimizer: Mapping[str, Array]
    memory: Mapping[str, Array]
    state: Mapping[str, Any]
    """Next round, clock, plans, estimates, initial evaluation, whether it has finished."""
    more: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Further arrays, by what they are."""


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """What the folder of a finished run holds; mappings go by method, the first method first."""

    experiment: str
    """experiment.toml as text."""
    clients: Clients
    start_seconds: Floats
    """From the start of a round until the client sends, at full rank, shape (N,)."""
    upload_seconds: Floats
    """To send the full rank alone in the whole band, shape (N,)."""
    plans: Mapping[str, Plans]
    records: Mapping[str, Sequence[RoundRecord]]
    summary: Mapping[str, Any]
    target: Target | None
    notes: Sequence[str]
    """What a reader must know of the folder's state, for people to read."""
    times: Sequence[RoundTimes] = ()
    """Predicted and measured times of each round that somebody answered, of a run on a testbed."""
