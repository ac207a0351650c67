"""Tasks and updates as Flower messages: a few named numbers, and the bytes of the codec.

A message is a `RecordDict` of two parts. "head" says whose it is, "body" holds one safetensors
block. Nothing else is read, and nothing in a message is code.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, RecordDict

from fedpace.core.adapter import Adapter, AdapterLayout, Components, Role, take_components
from fedpace.core.errors import InputError, RunError
from fedpace.core.messages import ClientTask, ClientUpdate
from fedpace.core.profile import ValueType
from fedpace.core.rng import rng_for
from fedpace.core.sketch import Sketch, sketch_named
from fedpace.engines.codec import decode, encode

PROTOCOL = 3
"""Raised with every change of what the two ends say to each other."""


@dataclass(frozen=True, slots=True)
class Wire:
    """What both ends must agree on to read each other, beside the message itself."""

    run: str
    """Drawn anew by each server run; an answer to another one is refused."""
    layout: AdapterLayout
    sketch: Sketch
    trained: tuple[Role, ...]
    """Which tensors are trained and come back."""
    upload_type: ValueType = "float32"
    """How values travel up."""

    @property
    def sent(self) -> AdapterLayout:
        """Layout of what comes back."""
        return self.layout.only(self.trained)

    def components(self, task: ClientTask) -> Components:
        """Return the index set of a task."""
        return self.sketch.components(task, self.layout.rank)


def task_content(
    task: ClientTask, wire: Wire, rate_bps: float, accepted: int = 0, refused: str = ""
) -> RecordDict:
    """Write a task; only the components that the client needs go down.

    Args:
        task: what is asked.
        wire: of the run.
        rate_bps: uplink rate assigned to the client, bit/s, for whoever enforces it.
        accepted: how many of the client's updates were used so far, for its own information.
        refused: why its last one was not, likewise.
    """
    partial = not wire.sketch.whole and task.received_rank is None
    adapter = task.adapter
    if partial:
        adapter = take_components(adapter, wire.layout, wire.components(task))
    head: dict[str, int | float | str | bool] = {
        "run": wire.run, "client": task.client, "round": task.round_index,
        "sketch_rank": task.sketch_rank, "seed": task.seed, "sketch": wire.sketch.name,
        "trained": " ".join(wire.trained), "partial": partial, "rate_bps": rate_bps,
        "upload_type": wire.upload_type, "accepted": accepted,
        "refused": told(refused),
    }  # fmt: skip
    return _content(head, encode(adapter, wire.layout))


def read_task(content: RecordDict, layout: AdapterLayout) -> tuple[ClientTask, Wire]:
    """Read a task; components that did not come are zero, and the client does not use them.

    Raises:
        RunError: the message is not a task of this protocol.
    """
    head, body = _parts(content)
    try:
        trained: Any = tuple(str(head["trained"]).split())
        sketch = sketch_named(str(head["sketch"]))
        upload_type: Any = str(head["upload_type"])
        wire = Wire(str(head["run"]), layout, sketch, trained, upload_type)
        numbers = [int(str(head[name])) for name in ("client", "round", "sketch_rank", "seed")]
    except (KeyError, ValueError, InputError) as error:
        raise RunError(f"a task cannot be read ({error!r}); update both ends") from None
    client, round_index, sketch_rank, seed = numbers
    task = ClientTask(client, round_index, {}, sketch_rank, seed)
    if not head["partial"]:
        adapter: Adapter = decode(body, layout, layout.rank)
    else:
        values = decode(body, layout, sketch_rank)
        chosen = wire.components(task)
        adapter = {}
        for t in layout.tensors:
            whole = np.zeros(t.shape, dtype=np.float32)
            if t.rank_axis is None:
                whole = values[t.name]
            elif t.rank_axis == 0:
                whole[chosen] = values[t.name]
            else:
                whole[:, chosen] = values[t.name]
            adapter[t.name] = whole
    return ClientTask(client, round_index, adapter, sketch_rank, seed), wire


def update_content(
    update: ClientUpdate, task: ClientTask, wire: Wire, train_seconds: float
) -> RecordDict:
    """Write an update: the values of its components and what it cost."""
    rng = rng_for(task.seed, "noise", task.round_index, task.client)
    head: dict[str, int | float | str | bool] = {
        "run": wire.run, "client": update.client, "round": update.round_index,
        "train_loss": update.train_loss, "train_seconds": train_seconds,
    }  # fmt: skip
    return _content(head, encode(update.delta, wire.sent, wire.upload_type, rng))


def read_update(content: RecordDict, task: ClientTask, wire: Wire) -> tuple[ClientUpdate, float]:
    """Read the answer to a task.

    Returns:
        The update and the seconds the client says it trained.

    Raises:
        RunError: it is not an answer to this task of this run, or not of its size.
    """
    head, body = _parts(content)
    asked = {"run": wire.run, "client": task.client, "round": task.round_index}
    for name, value in asked.items():
        if head.get(name) != value:
            raise RunError(f"an answer for {name} {head.get(name)!r} to a task for {value!r}")
    loss, seconds = head.get("train_loss"), head.get("train_seconds")
    # No time below zero and no NaN may reach the estimates of the fleet's speed.
    if not isinstance(loss, float) or not isinstance(seconds, float) or not 0 <= seconds < math.inf:
        raise RunError(f"an answer with loss {loss!r} after {seconds!r} s")
    components = wire.components(task)
    delta = decode(body, wire.sent, len(components))
    return ClientUpdate(task.client, task.round_index, components, delta, loss), seconds


def assigned_bps(content: RecordDict) -> float:
    """Return the uplink rate that a task assigns to its client, bit/s."""
    return float(str(_parts(content)[0].get("rate_bps", "inf")))


def accepted_updates(content: RecordDict) -> int:
    """Return how many updates of the task's client the server has used so far."""
    return int(str(_parts(content)[0].get("accepted", 0)))


def last_refusal(content: RecordDict) -> str:
    """Return why the server did not use the last update of the task's client; "" where it did."""
    return told(_parts(content)[0].get("refused", ""))


def empty_message(to: str = "") -> RecordDict:
    """Write a message that is answered by another such one, to see how long that takes.

    Args:
        to: of an answer, the message it answers: Flower does not send again what it has.
    """
    return RecordDict({"echo": ConfigRecord({"to": to})})


def is_empty_message(content: RecordDict) -> bool:
    """Say whether `empty_message` wrote it."""
    return "echo" in content


def told(reason: object) -> str:
    """Return what a client said as text for a record or a terminal: short, and printable."""
    return "".join(c if c.isprintable() else " " for c in str(reason))[:300]


def body_bytes(content: RecordDict) -> int:
    """Return the length of a message's block, bytes."""
    return len(_parts(content)[1])


def _content(head: dict[str, int | float | str | bool], body: bytes) -> RecordDict:
    return RecordDict({"head": ConfigRecord(dict(head)), "body": ConfigRecord({"bytes": body})})


def _parts(content: RecordDict) -> tuple[ConfigRecord, bytes]:
    records = content.config_records
    body = records.get("body", ConfigRecord()).get("bytes")
    if "head" not in records or not isinstance(body, bytes):
        raise RunError(f"a message has the parts {sorted(content)}, not 'head' and 'body'")
    return records["head"], body
