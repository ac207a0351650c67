"""One interface for all that happens to updates on their way: at the client and at the server.

Hooks stand in one ordered list. On the client they are applied in order, before the update is
encoded; at the server what they did is undone in reverse order, update by update, and then each may
change the sum, the first of the list around all others. The order is that of Apple's pfl-research
(Granqvist et al., NeurIPS 2024), kept here as plain records of functions.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import NDArray

from fedpace.core.adapter import Adapter
from fedpace.core.messages import ClientTask
from fedpace.federation.aggregation import Aggregate, Aggregation, Memory, Returned

Values = Mapping[str, NDArray[Any]]
"""An update on its way: an array for each tensor that travels, of whatever type, and what a hook
adds beside them."""
Sum = Callable[[Returned], Aggregate]
"""What comes after a hook at the server: the other hooks, at last the method itself."""


def _as_it_is(values: Values, task: ClientTask) -> Values:
    return values


def _sum_alone(memory: Memory, back: Returned, add_up: Sum) -> tuple[Aggregate, Memory]:
    return add_up(back), memory


def _nothing() -> Memory:
    return {}


def _unchanged(memory: Memory) -> Memory:
    return memory


@dataclass(frozen=True, slots=True, eq=False)
class UpdateHook:
    """One transformation of updates; what is left out does nothing."""

    name: str
    """What its memory is kept under, in the server's state."""
    client: Callable[[Values, ClientTask], Values] = _as_it_is
    """On the client: what is sent of what was trained. The sizes of the arrays it returns may
    depend on the sketch rank alone, so that both ends know them before; at rank 0, which no client
    has, they are what is sent whatever the rank."""
    arrival: Callable[[Values, ClientTask], Values] = _as_it_is
    """At the server, for each update: what was trained of what was sent."""
    server: Callable[[Memory, Returned, Sum], tuple[Aggregate, Memory]] = _sum_alone
    """At the server, once a round: (memory, what came back, sum) -> the aggregate, next memory."""
    begin: Callable[[], Memory] = _nothing
    """Memory before the first round."""
    grow: Callable[[Memory], Memory] = _unchanged
    """The memory of fewer clients -> that of all, the new ones behind the others."""
    most_clients: int | None = None
    """How many clients it can serve; None where nothing limits them."""


def leave(hooks: Sequence[UpdateHook], values: Values, task: ClientTask) -> Values:
    """Apply the hooks on a client, in order."""
    for hook in hooks:
        values = hook.client(values, task)
    return values


def arrive(hooks: Sequence[UpdateHook], values: Values, task: ClientTask) -> Values:
    """Undo at the server what the hooks did on a client, in reverse order."""
    for hook in reversed(hooks):
        values = hook.arrival(values, task)
    return values


def hooked(aggregation: Aggregation, hooks: Sequence[UpdateHook]) -> Aggregation:
    """Return a method with hooks around it; their memories stand in its own, by name."""

    def begin(initial: Adapter) -> tuple[Adapter, Memory]:
        adapter, memory = aggregation.begin(initial)
        return adapter, {**memory, **_joined({h.name: h.begin() for h in hooks})}

    def grow(memory: Memory) -> Memory:
        own, theirs = _apart(memory, hooks)
        grown = {h.name: h.grow(theirs[h.name]) for h in hooks}
        return {**aggregation.grow(own), **_joined(grown)}

    def aggregate(adapter: Adapter, memory: Memory, back: Returned) -> tuple[Aggregate, Memory]:
        own, theirs = _apart(memory, hooks)
        after: dict[str, Memory] = {}

        def from_hook(position: int, back: Returned) -> Aggregate:
            if position == len(hooks):
                result, after[""] = aggregation.aggregate(adapter, own, back)
                return result
            hook = hooks[position]
            result, after[hook.name] = hook.server(
                theirs[hook.name], back, lambda back: from_hook(position + 1, back)
            )
            return result

        result = from_hook(0, back)
        return result, {**after.pop(""), **_joined(after)}

    if not hooks:
        return aggregation
    return replace(aggregation, begin=begin, grow=grow, aggregate=aggregate)


def _joined(memories: Mapping[str, Memory]) -> Memory:
    return {f"{hook}/{name}": y for hook, m in memories.items() for name, y in m.items()}


def _apart(memory: Memory, hooks: Sequence[UpdateHook]) -> tuple[Memory, Mapping[str, Memory]]:
    theirs: dict[str, dict[str, Any]] = {hook.name: {} for hook in hooks}
    own: dict[str, Any] = {}
    for name, value in memory.items():
        hook, slash, rest = name.partition("/")
        if slash and hook in theirs:
            theirs[hook][rest] = value
        else:
            own[name] = value
    return own, theirs
