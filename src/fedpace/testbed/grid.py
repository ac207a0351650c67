"""Flower's grid, seen by the shaper: what leaves as a task, and whose answer has come."""

from collections.abc import Callable, Iterable
from typing import Any

from flwr.app import Message, MessageType

from fedpace.engines.flower.arrivals import Arrivals, Upload
from fedpace.engines.flower.messages import assigned_bps

Ask = Callable[..., Any]
"""Tell the shaper something and wait for its answer."""


class ShapedGrid(Arrivals):
    """`Arrivals`, with the kernel's classes set before tasks leave and after answers came."""

    def __init__(self, arrivals: Arrivals, ask: Ask) -> None:
        super().__init__(arrivals._grid)
        self._arrivals, self._ask = arrivals, ask
        self._away: dict[str, int] = {}
        """Client by task that is out."""

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Have the classes set to the rates that the tasks assign, then send them."""
        every = list(messages)
        tasks = {i: m for i, m in enumerate(every) if m.metadata.message_type == MessageType.TRAIN}
        heads = {i: m.content.config_records["head"] for i, m in tasks.items()}
        if tasks:
            rates = [(int(str(heads[i]["client"])), assigned_bps(m.content))
                     for i, m in tasks.items()]  # fmt: skip
            self._ask("assign", int(str(next(iter(heads.values()))["round"])), rates)
        names = list(super().push_messages(every))
        self._away |= {names[i]: int(str(head["client"])) for i, head in heads.items() if names[i]}
        return names

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Return the replies that are complete; the shaper is told whose."""
        found = self._arrivals.pull_messages(message_ids)
        names = [m.metadata.reply_to_message_id for m in found]
        if came := [self._away.pop(name) for name in names if name in self._away]:
            self._ask("arrive", came)
        return found

    def upload(self, asked: str) -> Upload:
        """Return, once, how the reply to a message that was pulled came."""
        return self._arrivals.upload(asked)
