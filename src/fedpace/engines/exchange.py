"""What goes down to a client and comes back up: the same functions in every engine.

A client sees what it can make of a message's bytes and of what it knows already, the initial
adapter and the seed; nothing else. Each function does one task or one update, so that an engine may
call them in any order.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from fedpace.core.adapter import (
    Adapter,
    AdapterLayout,
    Components,
    put_components,
    take_components,
)
from fedpace.core.messages import ClientTask, ClientUpdate
from fedpace.core.payload import Payload
from fedpace.engines.codec import Form, decode, encode, form_of
from fedpace.federation.aggregation import Aggregation
from fedpace.federation.hooks.hook import UpdateHook, arrive, leave


@dataclass(frozen=True, slots=True, eq=False)
class Exchange:
    """What both ends must agree on for one method, beside the messages themselves."""

    layout: AdapterLayout
    """The adapter's."""
    initial: Adapter
    """The adapter before the first round; both ends draw it from the seed."""
    aggregation: Aggregation
    hooks: tuple[UpdateHook, ...] = ()

    @property
    def received(self) -> AdapterLayout:
        """Layout of what goes down."""
        return self.aggregation.received or self.layout

    @property
    def sent(self) -> AdapterLayout:
        """Layout of what comes back."""
        return self.layout.only(self.aggregation.trained)

    def components(self, task: ClientTask) -> Components:
        """Return the index set of a task."""
        return self.aggregation.sketch.components(task, self.layout.rank)


def encode_task(exchange: Exchange, task: ClientTask) -> bytes:
    """Encode what a client needs of the adapter it starts from."""
    needed = _needed(exchange, task)
    return encode(take_components(task.adapter, exchange.received, needed), exchange.received)


def decode_task(exchange: Exchange, data: bytes, task: ClientTask) -> ClientTask:
    """Return a task as its client sees it; components that it does not need are zero.

    Args:
        exchange: of the method.
        data: what `encode_task` made.
        task: its adapter is not looked at.

    Raises:
        RunError: the bytes are no such message.
    """
    needed = _needed(exchange, task)
    values = decode(data, exchange.received, _task_form(exchange.received, len(needed)))
    came = put_components(values, exchange.received, needed)
    aggregation = exchange.aggregation
    start = aggregation.start({**exchange.initial, **came}, task.round_index, task.seed)
    return replace(task, adapter=start)


def encode_update(exchange: Exchange, update: ClientUpdate, task: ClientTask) -> bytes:
    """Encode what a client trained."""
    return encode(leave(exchange.hooks, update.delta, task), exchange.sent)


def decode_update(
    exchange: Exchange, data: bytes, task: ClientTask, train_loss: float
) -> ClientUpdate:
    """Return the update that answers a task.

    Args:
        exchange: of the method.
        data: what `encode_update` made.
        task: as it was given.
        train_loss: what the client says.

    Raises:
        RunError: the bytes are no such message.
    """
    form = _update_form(exchange.sent, exchange.hooks, task.sketch_rank)
    delta = arrive(exchange.hooks, decode(data, exchange.sent, form), task)
    return ClientUpdate(task.client, task.round_index, exchange.components(task), delta, train_loss)


def decode_tasks(
    exchange: Exchange, messages: Sequence[bytes], tasks: Sequence[ClientTask]
) -> list[ClientTask]:
    """Decode tasks of one round; clients that were sent the same share one adapter."""
    adapters: dict[tuple[bytes, bytes], Adapter] = {}
    seen = []
    for data, task in zip(messages, tasks, strict=True):
        key = data, _needed(exchange, task).tobytes()
        if key not in adapters:
            adapters[key] = decode_task(exchange, data, task).adapter
        seen.append(replace(task, adapter=adapters[key]))
    return seen


def download_bytes(exchange: Exchange, sketch_rank: int) -> int:
    """Return the length of the message to a client that trains so many components, bytes."""
    rank = exchange.layout.rank
    needed = int(exchange.aggregation.sketch.received_rank(sketch_rank, rank))
    return _task_form(exchange.received, needed).length


def upload_bytes(exchange: Exchange, sketch_rank: int) -> int:
    """Return the length of an update of so many components, bytes."""
    return _update_form(exchange.sent, exchange.hooks, sketch_rank).length


def payload(exchange: Exchange) -> Payload:
    """Return how many bits the messages of a method hold; exact where k is r."""
    rank = exchange.layout.rank
    down, least_down = (_task_form(exchange.received, k) for k in (rank, 0))
    up, least_up = (_update_form(exchange.sent, exchange.hooks, k) for k in (rank, 0))
    grown_up, grown_down = up.body - least_up.body, down.body - least_down.body
    return Payload(
        fixed_bits=8.0 * (up.length - grown_up),
        bits_per_rank=8.0 * grown_up / rank,
        download_fixed_bits=8.0 * (down.length - grown_down),
        download_bits_per_rank=8.0 * grown_down / rank,
    )


def _needed(exchange: Exchange, task: ClientTask) -> Components:
    if all(t.rank_axis is None for t in exchange.received.tensors):
        return np.arange(0)  # so that what all are sent is the same, whatever their ranks
    if exchange.aggregation.sketch.whole:
        return np.arange(exchange.layout.rank)
    return exchange.components(task)


@lru_cache(maxsize=256)
def _task_form(received: AdapterLayout, needed: int) -> Form:
    return form_of(_blank(received, needed), received)


@lru_cache(maxsize=256)
def _update_form(sent: AdapterLayout, hooks: tuple[UpdateHook, ...], sketch_rank: int) -> Form:
    task = ClientTask(0, 0, {}, sketch_rank, 0)
    return form_of(leave(hooks, _blank(sent, sketch_rank), task), sent)


def _blank(layout: AdapterLayout, rank: int) -> Adapter:
    return {name: np.zeros(s, dtype=np.float32) for name, s in layout.shapes(rank).items()}
