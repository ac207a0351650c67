r"""What a client sends is checked before it is used: a bad update is refused, with its reason.

An update that passes has the tensors, shapes and numbers that its task asked for. What is left to
a malicious client is their direction and, within a limit, their length. Let ``norm`` be the norm
of an update as aggregated, divided by sqrt(r/k): that makes norms of different ranks comparable
(a random sketch multiplies the mean square by r/k, docs/theory.md; without one, read k = r in what
follows). LoRA part and head are measured apart. The limit of a client n is

.. math:: c \min(M^*, \max(M, Q_n)),

with c = `Checks.norm_factor` and, all over norms that arrived, accepted or not (derived here):

* M, the scale of now: the lower median over the clients of each one's own lower median among the
  last `Checks.window` norms of the last `RECENT_ROUNDS` rounds, or of each one's latest, this
  round's among them, where that is larger: norms that grow together carry M with them. Who left
  `SILENT` requests in a row without an answer has no say, unless fewer than two would have one:
  what it sent before it left would hold back those who go on;
* :math:`Q_n`, the client's own scale: the quantile `OWN_QUANTILE` of its last accepted norms. When
  a model has learned most clients' examples M falls to nothing, and a client with hard examples
  goes on as before: no multiple of M holds for it, but its own past does;
* :math:`M^*`, the largest median of the clients' own medians so far, or M where that is larger: how
  far any own scale may reach, and the limit of a client that is new.

So, for methods that sum the updates with weights w:

* one client m moves the aggregate of a round by at most :math:`w_m \sqrt{r/k_m}\, c M^*` in the
  LoRA part and :math:`w_m c M^*` in the head, whatever it sends; one whose norms have been small
  is held to c times those, or the others';
* w_m is its word as well, where it counts its own examples; see `believed_examples`;
* every median is one over clients, so that it lies between norms of honest clients as long as more
  than half of those it is taken of are honest, however often each was asked. That takes three
  clients: until three were heard (or all, if there are fewer), the norm of the adapter stands in
  for the scale; where later fewer are left M* is what holds for them.

A refusal is a strike, an accepted update takes back `FORGIVEN` of one: who is refused in less than
one of six rounds is never excluded in the long run. With server SGD at rate lambda the model
moves by lambda times the bound per round. Adam divides by the size of past updates, so there a
bound on the update is none on the step.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fedpace.core.adapter import AdapterLayout, squared_norms
from fedpace.core.errors import InputError
from fedpace.core.messages import ClientTask, ClientUpdate
from fedpace.core.profile import Floats
from fedpace.core.sketch import Sketch

Refusal = tuple[int, str]
"""(client, reason)."""


RECENT_ROUNDS = 20
"""Norms of earlier rounds are no sign of the scale of now: in the first rounds they grow."""
SILENT = 3
"""Requests in a row without an answer after which a client's norms are none of now."""
OWN_NORMS = 20
"""Accepted norms remembered of each client."""
OWN_QUANTILE = 0.9
"""What of them is a client's own scale."""
ESTABLISHED = 5
"""With fewer a client has no scale of its own yet."""
FORGIVEN = 0.2
"""Strikes taken back by an update that is accepted."""
MOST_LOSS = 1e6
"""No mean cross-entropy of a model that can still be trained is above this."""

Norms = tuple[float, float]
"""Norms of the LoRA part, as for a client of full rank, and of the head."""


@dataclass(frozen=True, slots=True)
class Checks:
    """How strict the server is with what arrives."""

    norm_factor: float = 6.0
    """c: a norm above c times the scale is refused; infinite asks nothing."""
    norm_cap: float = math.inf
    """A norm above this is refused whatever the scale."""
    window: int = 100
    """The scale of now is taken of so many norms, the last ones."""
    strikes: float = 3.0
    """A client is excluded for the rest of the run at so many strikes."""

    def __post_init__(self) -> None:
        if not self.norm_factor >= 1:
            raise InputError(f"norm_factor is {self.norm_factor!r}; below 1 half of all honest "
                             "updates would be refused")  # fmt: skip
        for name in ("norm_cap", "window", "strikes"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} is {getattr(self, name)!r}; it must be above 0")


@dataclass(frozen=True, slots=True)
class Watch:
    """What one round's checks leave to the next; part of the checkpoint."""

    recent: tuple[tuple[int, int, Norms], ...] = ()
    """(round, client, norms) of the last updates, accepted or not."""
    own: Mapping[int, tuple[Norms, ...]] = field(default_factory=dict)
    """Norms of each client's last accepted updates."""
    largest: Norms = (0.0, 0.0)
    """The largest medians over the clients so far, M*; 0 until enough were heard."""
    strikes: Mapping[int, float] = field(default_factory=dict)
    """Strikes of clients that were refused."""
    silent: Mapping[int, int] = field(default_factory=dict)
    """Requests in a row that a client left without an answer; those who answered are not here."""

    def excluded(self, checks: Checks) -> frozenset[int]:
        """Return the clients that are not asked any more."""
        return frozenset(c for c, count in self.strikes.items() if count >= checks.strikes)

    def to_json(self) -> dict[str, Any]:
        """Return the state as JSON types."""
        return {
            "recent": [[index, client, *norms] for index, client, norms in self.recent],
            "own": {str(client): [list(n) for n in norms] for client, norms in self.own.items()},
            "largest": list(self.largest),
            "strikes": {str(client): count for client, count in self.strikes.items()},
            "silent": {str(client): count for client, count in self.silent.items()},
        }

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> "Watch":
        """Rebuild the state from what `to_json` returned; an earlier version's begins anew."""
        if "recent" not in table:
            return cls()
        return cls(
            tuple((int(r), int(client), (lora, head)) for r, client, lora, head in table["recent"]),
            {int(c): tuple((lora, head) for lora, head in n) for c, n in table["own"].items()},
            (table["largest"][0], table["largest"][1]),
            {int(client): float(count) for client, count in table["strikes"].items()},
            {int(client): int(count) for client, count in table.get("silent", {}).items()},
        )


@dataclass(frozen=True, slots=True, eq=False)
class Verdict:
    """What came of the checks of one round."""

    accepted: Sequence[int]
    """Positions of the updates that may be used."""
    refusals: tuple[Refusal, ...]
    watch: Watch
    excluded: tuple[int, ...] = ()
    """Clients that this round's refusals excluded."""


def believed_examples(
    examples: Sequence[int], factor: float = 10.0, most_weight: float = 0.5
) -> Floats:
    """Limit the numbers of examples that clients claim.

    None is believed to have more than `factor` times their lower median, nor more than the share
    `most_weight` of all. Half of the clients have the median or more, so with the first alone none
    has a data weight above 2 factor / N, whatever is claimed; the second holds in small fleets.
    That the median is honest takes half of the clients to be.

    Args:
        examples: what each client says, shape (N,).
        factor: how much larger than the median a client may honestly be.
        most_weight: in [0.5, 1].

    Returns:
        What is believed, shape (N,).

    Example:
        >>> believed_examples([100, 120, 80, 10**9]).tolist()
        [100.0, 120.0, 80.0, 300.0]
    """
    counts = np.asarray(examples, dtype=np.float64)
    limit = factor * float(np.sort(counts)[(len(counts) - 1) // 2])
    believed = np.minimum(counts, limit)
    if most_weight < 1 and len(believed) > 1:
        largest = int(np.argmax(believed))
        others = float(believed.sum() - believed[largest])
        believed[largest] = min(believed[largest], others * most_weight / (1 - most_weight))
    return believed


def check_updates(
    checks: Checks,
    watch: Watch,
    tasks: Sequence[ClientTask],
    updates: Sequence[ClientUpdate],
    layout: AdapterLayout,
    sketch: Sketch,
    unreadable: Sequence[Refusal] = (),
    clients: int | None = None,
) -> Verdict:
    """Check the updates of one round against what was asked for.

    Args:
        checks: how strict to be.
        watch: what the last round left.
        tasks: what was asked for in this round.
        updates: what came back, in any order, of anyone; `client` must be whom the engine knows
            the sender to be, not whom it says it is, or one could have another excluded.
        layout: of what was to be trained, full size.
        sketch: how k of r components were to be trained.
        unreadable: answers that were refused before they became updates; they count as well.
        clients: of the run; with fewer than three all of them set the scale.

    Returns:
        Which updates to use, why not the others, and the state for the next round.
    """
    # Where rounds overlap, one client may have answered two tasks of different rounds.
    asked: dict[int, list[ClientTask]] = {}
    for task in tasks:
        asked.setdefault(task.client, []).append(task)
    refusals = list(unreadable)
    sound: list[int] = []
    norms: list[tuple[int, Norms]] = []
    for position, update in enumerate(updates):
        reason = _fault(update, _taken(asked.get(update.client, []), update), layout, sketch)
        if reason is not None:
            refusals.append((update.client, reason))
            continue
        sound.append(position)
        norms.append((update.client, _norms(update, layout, sketch)))

    answered = {update.client for update in updates} | {client for client, _ in unreadable}
    silent = {c: n for c, n in watch.silent.items() if c not in answered}
    silent |= {task.client: silent.get(task.client, 0) + 1 for task in tasks
               if task.client not in answered}  # fmt: skip
    watch = replace(watch, silent=silent)
    first = _length(tasks[0].adapter) if tasks else math.inf
    index = max((task.round_index for task in tasks), default=0)
    long, after = judge_norms(checks, watch, index, norms, first, clients)
    accepted = [position for position, reason in zip(sound, long, strict=True) if not reason]
    strikes = dict(after.strikes)
    for client, _ in refusals:
        strikes[client] = strikes.get(client, 0.0) + 1.0
    refusals += [(c, reason) for (c, _), reason in zip(norms, long, strict=True) if reason]
    after = replace(after, strikes=strikes)
    new = after.excluded(checks) - watch.excluded(checks)
    return Verdict(accepted, tuple(refusals), after, tuple(sorted(new)))


def judge_norms(
    checks: Checks,
    watch: Watch,
    round_index: int,
    norms: Sequence[tuple[int, Norms]],
    adapter_norm: float,
    clients: int | None = None,
) -> tuple[list[str], Watch]:
    """Say of each of a round's updates why it is too long, "" where it is not; and the next state.

    Args:
        checks: how strict to be.
        watch: what the last round left.
        round_index: of the round.
        norms: (client, norms) of the round's updates that are otherwise sound.
        adapter_norm: of the adapter they started from, the scale until enough clients were heard.
        clients: of the run; with fewer than three all of them set the scale.
    """
    limits, watch = norm_limits(checks, watch, round_index, norms, adapter_norm, clients)
    own, strikes, reasons = dict(watch.own), dict(watch.strikes), []
    for (client, sizes), most in zip(norms, limits, strict=True):
        reason = "; ".join(
            f"norm of the {part} is {size:.3g}, the limit {limit:.3g}"
            for part, size, limit in zip(("LoRA part", "head"), sizes, most, strict=True)
            if size > limit
        )
        reasons.append(reason)
        if reason:
            strikes[client] = strikes.get(client, 0.0) + 1.0
            continue
        own[client] = (*own.get(client, ()), sizes)[-OWN_NORMS:]
        if client in strikes:
            strikes[client] = max(0.0, strikes[client] - FORGIVEN)
    return reasons, replace(watch, own=own, strikes=strikes)


def norm_limits(
    checks: Checks,
    watch: Watch,
    round_index: int,
    norms: Sequence[tuple[int, Norms]],
    adapter_norm: float,
    clients: int | None = None,
) -> tuple[list[Norms], Watch]:
    """Return what the norms of a round's updates may be at most, and the state that knows them.

    Arguments are those of `judge_norms`.
    """
    enough = min(3, clients or 3)
    new = [(round_index, client, sizes) for client, sizes in norms]
    since = round_index - RECENT_ROUNDS
    kept = [each for each in (*watch.recent, *new) if each[0] > since]
    recent = tuple(kept[-max(checks.window, len(norms)) :])
    voters = {client for _, client, _ in recent}
    there = {client for client in voters if watch.silent.get(client, 0) < SILENT}
    if len(there) > 1:
        voters = there
    largest, limits = [], []
    for part in (0, 1):
        heard: dict[int, list[float]] = {}
        for _, client, sizes in recent:
            if client not in voters:
                continue
            heard.setdefault(client, []).append(sizes[part])
        settled = _lower_median([_lower_median(sizes) for sizes in heard.values()])
        scale = _lower_median([sizes[-1] for sizes in heard.values()])
        most = watch.largest[part]
        known = most > 0 or len(heard) >= enough  # later, whoever is left tells the scale
        if known:
            most = max(most, settled)
        largest.append(most)
        if known:
            scale = max(scale, settled)
            most = max(most, scale)
            if len(heard) < enough:  # no majority is left that could tell the scale of now
                scale = most
        if not most:
            scale = most = adapter_norm
        own = [_own_scale(watch, client, part, most) for client, _ in norms]
        scales = (min(most, max(scale, each)) for each in own)
        limits.append([min(checks.norm_cap, checks.norm_factor * each) for each in scales])
    state = replace(watch, recent=recent, largest=(largest[0], largest[1]))
    return list(zip(*limits, strict=True)), state


def _own_scale(watch: Watch, client: int, part: int, otherwise: float) -> float:
    sizes = sorted(norms[part] for norms in watch.own.get(client, ()))
    if len(sizes) < ESTABLISHED:
        return otherwise
    return sizes[min(len(sizes) - 1, math.ceil(OWN_QUANTILE * len(sizes)) - 1)]


def _taken(asked: list[ClientTask], update: ClientUpdate) -> ClientTask | None:
    """Take the task that an update answers from those of its client, or else any of them."""
    rounds = [task.round_index for task in asked]
    at = rounds.index(update.round_index) if update.round_index in rounds else 0
    return asked.pop(at) if asked else None


def _fault(
    update: ClientUpdate, task: ClientTask | None, layout: AdapterLayout, sketch: Sketch
) -> str | None:
    """Say what is wrong with an update, its length apart; None where nothing is."""
    if task is None:
        return "an answer that nobody asked for, or a second one"
    if update.round_index != task.round_index:
        return f"an answer to round {update.round_index} in round {task.round_index}"
    if not np.array_equal(update.components, sketch.components(task, layout.rank)):
        return f"not the {task.sketch_rank} rank components that were assigned"
    names = {t.name for t in layout.tensors}
    if odd := sorted(names.symmetric_difference(update.delta)):
        word = "missing" if odd[0] in names else "unknown"
        return f"tensor {odd[0]!r} is {word}"
    for t in layout.tensors:
        value = update.delta[t.name]
        shape = tuple(
            task.sketch_rank if axis == t.rank_axis else size for axis, size in enumerate(t.shape)
        )
        if value.dtype != np.float32:
            return f"tensor {t.name!r} is of {value.dtype}, not float32"
        if value.shape != shape:
            return f"tensor {t.name!r} has shape {value.shape}, not {shape}"
        if not np.isfinite(value).all():
            return f"tensor {t.name!r} has a value that is not finite"
    if not 0 <= update.train_loss <= MOST_LOSS:
        return f"its loss is {update.train_loss:.4g}, which is no mean cross-entropy"
    return None


def _norms(update: ClientUpdate, layout: AdapterLayout, sketch: Sketch) -> tuple[float, float]:
    """Return the norms of LoRA part, as for a client of full rank, and head."""
    lora, head = squared_norms(update.delta, layout)
    rank = len(update.components)
    factor = sketch.server_scale(rank, layout.rank) / sketch.client_scale(rank, layout.rank)
    return math.sqrt(lora * factor), math.sqrt(head)


def _lower_median(values: Sequence[float]) -> float:
    """Return the median, the smaller one of two, since one may be malicious; 0 of none."""
    return sorted(values)[(len(values) - 1) // 2] if values else 0.0


def _length(adapter: Mapping[str, Any]) -> float:
    """Return the norm of a whole adapter; infinite where it says nothing yet."""
    squares = (np.square(value, dtype=np.float64) for value in adapter.values())
    return math.sqrt(sum(float(each.sum()) for each in squares)) or math.inf
