"""Who is there: Flower's nodes, and the clients that introduced themselves from them.

A node's id changes with every start (it stays where a key is registered), a client's name does
not. The server asks each new node once, with its offer of the run; the answer names the client and
counts its examples. Positions 0..N-1 in the population are given by name when the run begins; who
comes later is admitted behind them, unless the run is full.
"""

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid

from fedpace.core.errors import RunError
from fedpace.engines.flower.messages import told

ASK_AGAIN_SECONDS = 120.0
"""A node that has not answered the offer by then is asked again: it may have started anew."""
OFFER_SECONDS = 1800.0
"""An answer to the offer counts until then: its client may load a large model on a busy machine."""
TAKEN_SECONDS = 5.0
"""A client whose name another one has is asked again after so long,"""
TAKEN_PATIENCE_SECONDS = 75.0
"""and turned away after so long: one that died is held for connected for up to a minute."""

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
"""What a client may be called."""
MOST_EXAMPLES = 10**12
"""More than this is no count."""
AWAY = -1
"""No node has this id."""


@dataclass(frozen=True, slots=True)
class Member:
    """A client that introduced itself."""

    name: str
    node: int
    facts: Mapping[str, Any]
    """What it said of itself: "examples", and what it likes to add."""


@dataclass(slots=True)
class Roster:
    """The clients of a run; `poll` brings it up to date."""

    grid: Grid
    offer: Mapping[str, Any]
    """What every new node is told, JSON types; a client that cannot take part says why."""
    clock: Callable[[], float] = time.monotonic
    members: dict[str, Member] = field(default_factory=dict)
    """By name, everyone who ever introduced itself."""
    names: tuple[str, ...] = ()
    """Names of the population, by position; empty until the run begins."""
    most: int | None = None
    """The run is full with so many; None: it never is."""
    refused: list[tuple[str, str]] = field(default_factory=list)
    """(name or node, reason) of whoever cannot take part."""
    online: frozenset[int] = frozenset()
    barred: dict[str, str] = field(default_factory=dict)
    """Why the clients of these names take no part any more."""
    expected: dict[str, int] = field(default_factory=dict)
    """How many examples the clients of the population had when they entered."""
    _taken: dict[int, float] = field(default_factory=dict)
    """Nodes of clients whose name another one has, and since when."""
    _asked: dict[str, int] = field(default_factory=dict)
    _known: dict[int, float] = field(default_factory=dict)
    _key_names: dict[int, str] = field(default_factory=dict)

    def poll(self) -> None:
        """See who came, who went, and who answered."""
        now = self.clock()
        nodes = list(self.grid.get_nodes())
        self.online = frozenset(node.node_id for node in nodes)
        self._key_names = {node.node_id: node.name for node in nodes if node.name}
        answered = {member.node for member in self.members.values()}
        self._known = {node: t for node, t in self._known.items() if node in self.online}
        new = [
            node for node in sorted(self.online - answered)
            if now - self._known.get(node, -ASK_AGAIN_SECONDS) >= ASK_AGAIN_SECONDS
        ]  # fmt: skip
        if new:
            text = json.dumps(dict(self.offer))
            asked = self.grid.push_messages(
                [
                    Message(
                        RecordDict({"offer": ConfigRecord({"json": text})}), dst_node_id=node,
                        message_type=MessageType.QUERY, ttl=OFFER_SECONDS,
                    )
                    for node in new
                ]
            )  # fmt: skip
            self._asked.update({m: n for m, n in zip(asked, new, strict=True) if m})
            self._known.update(dict.fromkeys(new, now))
        if self._asked:
            for reply in self.grid.pull_messages(list(self._asked)):
                self._introduced(reply)

    def bar(self, name: str, reason: str) -> None:
        """Have a client take no part any more; it is told, and ends."""
        self.barred[name] = reason
        member = self.members.pop(name, None)
        if member is not None and member.node in self.online:
            self._turn_away(member.node, reason)

    def _turn_away(self, node: int, reason: str, *, may_pass: bool = False) -> None:
        """Tell a client why it takes no part; unless that may pass, it ends."""
        content = {**self.offer, "refused": reason, "may_pass": may_pass}
        self.grid.push_messages(
            [
                Message(
                    RecordDict({"offer": ConfigRecord({"json": json.dumps(content)})}),
                    dst_node_id=node, message_type=MessageType.QUERY, ttl=ASK_AGAIN_SECONDS,
                )
            ]
        )  # fmt: skip

    def _refuse(self, node: int, name: str, reason: str) -> None:
        """Turn a client away, on both sides."""
        self.refused.append((name, reason))
        self._turn_away(node, reason)

    def begin(self, names: Sequence[str] | None = None) -> None:
        """Fix the population: these names, or all that are there, in order."""
        self._settle(tuple(sorted(self.members) if names is None else names))

    def admit(self) -> int:
        """Take in who introduced itself since the run began and is there; returns how many."""
        new = [m.name for m in self.present() if m.name not in self.names]
        room = len(new) if self.most is None else max(0, self.most - len(self.names))
        self._settle((*self.names, *new[:room]))
        for name in new[room:]:  # asked again, with the names, it will say so and end
            self._known.pop(self.members.pop(name).node, None)
        return min(room, len(new))

    def _settle(self, names: tuple[str, ...]) -> None:
        self.names = names
        for name in names:
            if name in self.members:
                self.expected.setdefault(name, self.members[name].facts["examples"])
        if self._full():
            self.offer = {**self.offer, "population": list(names)}

    def _full(self) -> bool:
        return self.most is not None and 0 < len(self.names) >= self.most

    def dismiss(self, seconds: float = 3.0) -> None:
        """Tell everyone that the run is over, so that clients end instead of waiting."""
        offer, self.offer = self.offer, {"run": self.offer.get("run"), "over": True}
        self._asked, self._known, members, self.members = {}, {}, self.members, {}
        self.poll()
        end = self.clock() + seconds
        while self._asked and self.clock() < end:
            time.sleep(0.05)
            for reply in self.grid.pull_messages(list(self._asked)):
                self._asked.pop(reply.metadata.reply_to_message_id, None)
        self.offer, self.members = offer, members

    def present(self) -> list[Member]:
        """Return who introduced itself and is online, by name."""
        return [m for _, m in sorted(self.members.items()) if m.node in self.online]

    def node_of(self, client: int) -> int | None:
        """Return the node on which a client of the population is now; None where it is away."""
        member = self.members.get(self.names[client])
        return member.node if member is not None and member.node in self.online else None

    def _introduced(self, reply: Message) -> None:
        node = self._asked.pop(reply.metadata.reply_to_message_id, None)
        if node is None:
            return
        if reply.has_error():
            self.refused.append((str(node), told(reply.error.reason or "no reason given")))
            return
        try:
            facts = _facts(reply)
        except RunError as error:
            self._refuse(node, self._key_names.get(node, str(node)), str(error))
            return
        # Who joined with a key is whom the key was given to, whatever it says.
        facts["name"] = name = self._key_names.get(node, facts["name"])
        if "refusal" in facts:
            self.refused.append((name, told(facts["refusal"])))
            return
        if self._full() and name not in self.names:
            self._refuse(node, name, "the run takes no more clients")
            return
        if name in self.barred:
            self._turn_away(node, self.barred[name])
            return
        other = self.members.get(name)
        if other is not None and other.node != node and other.node in self.online:
            self._name_taken(node, name)
            return
        if facts["examples"] != (had := self.expected.get(name, facts["examples"])):
            self._refuse(
                node, name,
                f"{name} had {had} examples when it entered this run, now {facts['examples']}; "
                "start it with the data that it had",
            )  # fmt: skip
            return
        self.members[name] = Member(name, node, facts)

    def _name_taken(self, node: int, name: str) -> None:
        now = self.clock()
        since = self._taken.setdefault(node, now)
        reason = f"another client takes part as {name}; join under another --name"
        if now == since:
            self.refused.append((name, "a client of that name is there already"))
        if now - since < TAKEN_PATIENCE_SECONDS:
            self._known[node] = now - ASK_AGAIN_SECONDS + TAKEN_SECONDS
            self._turn_away(node, reason, may_pass=True)
        else:
            self._turn_away(node, reason)


def introduction(message: Message, facts: Mapping[str, Any]) -> Message:
    """Answer an offer."""
    content = RecordDict({"facts": ConfigRecord({"json": json.dumps(dict(facts))})})
    return Message(content, reply_to=message)


def offer_of(message: Message) -> dict[str, Any]:
    """Read an offer.

    Raises:
        RunError: the message is none.
    """
    return _json(message, "offer")


def _facts(reply: Message) -> dict[str, Any]:
    facts = _json(reply, "facts")
    examples = facts.get("examples")
    name = facts.get("name")
    if not isinstance(name, str) or not re.fullmatch(NAME, name):
        raise RunError(told(f"a client that calls itself {name!r}"))
    if "refusal" not in facts and not (
        type(examples) is int and 0 < examples <= MOST_EXAMPLES  # True is an int as well
    ):
        raise RunError(
            told(f"client {name!r} says it has {str(examples)[:20]} examples, not 1 to 10^12")
        )
    return facts


def _json(message: Message, part: str) -> dict[str, Any]:
    try:
        table = json.loads(str(message.content.config_records[part]["json"]))
    except (KeyError, ValueError, RecursionError):
        table = None
    if not isinstance(table, dict):
        raise RunError(f"a message without a readable {part!r}; update both ends")
    return table
