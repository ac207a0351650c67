"""Tasks and updates as Flower messages: a few named numbers, and the bytes of the codec.

A message is a `RecordDict` of two parts. "head" says whose it is, "body" holds one safetensors
block. Nothing else is read, and nothing in a message is code.
"""

import math
from dataclasses import dataclass

from flwr.app import ConfigRecord, RecordDict

from fedpace.core.errors import InputError, RunError
from fedpace.core.messages import ClientTask, ClientUpdate
from fedpace.engines.exchange import Exchange, decode_task, decode_update, encode_update

PROTOCOL = 3
"""Raised with every change of what the two ends say to each other."""


@dataclass(frozen=True, slots=True, eq=False)
class Wire:
    """What both ends must agree on to read each other, beside the message itself."""

    run: str
    """Drawn anew by each server run; an answer to another one is refused."""
    method: str
    """Its name, by which a client makes its own `exchange`."""
    exchange: Exchange


def task_content(
    task: ClientTask,
    wire: Wire,
    body: bytes,
    rate_bps: float,
    accepted: int = 0,
    refused: str = "",
) -> RecordDict:
    """Write a task.

    Args:
        task: what is asked.
        wire: of the run.
        body: what `encode_task` made of it.
        rate_bps: uplink rate assigned to the client, bit/s, for whoever enforces it.
        accepted: how many of the client's updates were used so far, for its own information.
        refused: why its last one was not, likewise.
    """
    head: dict[str, int | float | str | bool] = {
        "run": wire.run, "method": wire.method, "client": task.client, "round": task.round_index,
        "sketch_rank": task.sketch_rank, "seed": task.seed, "rate_bps": rate_bps,
        "accepted": accepted, "refused": told(refused),
    }  # fmt: skip
    return _content(head, body)


def method_of(content: RecordDict) -> str:
    """Return the name of the method that a task is of."""
    return str(_parts(content)[0].get("method", ""))


def read_task(content: RecordDict, exchange: Exchange) -> tuple[ClientTask, Wire]:
    """Read a task as its client sees it.

    Raises:
        RunError: the message is not a task of this protocol.
    """
    head, body = _parts(content)
    try:
        numbers = [int(str(head[name])) for name in ("client", "round", "sketch_rank", "seed")]
        wire = Wire(str(head["run"]), str(head["method"]), exchange)
        client, round_index, sketch_rank, seed = numbers
        task = ClientTask(client, round_index, {}, sketch_rank, seed)
        return decode_task(exchange, body, task), wire
    except (KeyError, ValueError, InputError) as error:
        raise RunError(f"a task cannot be read ({error!r}); update both ends") from None


def update_content(
    update: ClientUpdate, task: ClientTask, wire: Wire, train_seconds: float
) -> RecordDict:
    """Write an update: the values of its components and what it cost."""
    head: dict[str, int | float | str | bool] = {
        "run": wire.run, "client": update.client, "round": update.round_index,
        "train_loss": update.train_loss, "train_seconds": train_seconds,
    }  # fmt: skip
    return _content(head, encode_update(wire.exchange, update, task))


def read_update(content: RecordDict, task: ClientTask, wire: Wire) -> tuple[ClientUpdate, float]:
    """Read the answer to a task.

    Returns:
        The update and the seconds the client says it trained.

    Raises:
        RunError: it is not an answer to this task of this run, or not of its size.
    """
    body, loss, seconds = read_answer(content, task, wire)
    return decode_update(wire.exchange, body, task, loss), seconds


def read_answer(content: RecordDict, task: ClientTask, wire: Wire) -> tuple[bytes, float, float]:
    """Read the answer to a task, but for the update.

    Returns:
        The encoded update, its loss, and the seconds the client says it trained.

    Raises:
        RunError: it is not an answer to this task of this run.
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
    return body, loss, seconds


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
