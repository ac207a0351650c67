r"""What a client sends is checked before it is used: a bad update is refused, with its reason.

An update that passes has the tensors, shapes and numbers that its task asked for. What is left to
a malicious client is their direction and, within a limit, their length. Let ``norm`` be the norm
of an update as aggregated, divided by sqrt(r/k): that makes norms of different ranks comparable
(a random sketch multiplies the mean square by r/k, docs/theory.md; without one, read k = r in what
follows). The limit is ``c M``, with c = `Checks.norm_factor` and M the lower median of the last
norms that arrived, accepted or not, this round's among them; LoRA part and head are measured apart.
So, for methods that sum the updates with weights w (derived here):

* one client m moves the aggregate of a round by at most :math:`w_m \sqrt{r/k_m}\, c M` in the LoRA
  part and :math:`w_m c M` in the head, whatever it sends;
* w_m is its word as well, where it counts its own examples; see `believed_examples`;
* M is at most the largest honest norm as long as no more than half of the norms it is taken of
  are malicious: with the lower median at position (n - 1) // 2, something honest lies at or above
  it. With a share f of them malicious it is at most the honest quantile 1 / (2 (1 - f)): 0.53 for
  one client of twenty;
* refused norms count as well, so honest norms that grow together carry M with them.

With server SGD at rate lambda the model moves by lambda times that per round. Adam divides by the
size of past updates, so there a bound on the update is none on the step.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fedpace.core.adapter import AdapterLayout, squared_norms
from fedpace.core.errors import InputError
from fedpace.core.messages import ClientTask, ClientUpdate, draw_components
from fedpace.core.profile import Floats, Sketch

Refusal = tuple[int, str]
"""(client, reason)."""


@dataclass(frozen=True, slots=True)
class Checks:
    """How strict the server is with what arrives."""

    norm_factor: float = 10.0
    """c: a norm above c times the median is refused; infinite asks nothing."""
    norm_cap: float = math.inf
    """A norm above this is refused whatever the median; it also holds in the first round."""
    window: int = 100
    """The median is taken of so many norms, the last ones."""
    strikes: int = 3
    """A client is excluded for the rest of the run after so many refusals."""

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

    lora_norms: tuple[float, ...] = ()
    head_norms: tuple[float, ...] = ()
    refused: Mapping[int, int] = field(default_factory=dict)
    """Refusals so far, by client."""

    def excluded(self, checks: Checks) -> frozenset[int]:
        """Return the clients that are not asked any more."""
        return frozenset(c for c, count in self.refused.items() if count >= checks.strikes)

    def to_json(self) -> dict[str, Any]:
        """Return the state as JSON types."""
        return {
            "lora_norms": list(self.lora_norms),
            "head_norms": list(self.head_norms),
            "refused": {str(client): count for client, count in self.refused.items()},
        }

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> "Watch":
        """Rebuild the state from what `to_json` returned."""
        refused = {int(client): int(count) for client, count in table["refused"].items()}
        return cls(tuple(table["lora_norms"]), tuple(table["head_norms"]), refused)


@dataclass(frozen=True, slots=True, eq=False)
class Verdict:
    """What came of the checks of one round."""

    accepted: Sequence[int]
    """Positions of the updates that may be used."""
    refusals: tuple[Refusal, ...]
    norm_limits: tuple[float, float]
    """The largest norm of the LoRA part and of the head that was let through."""
    watch: Watch


def believed_examples(examples: Sequence[int], factor: float = 10.0) -> Floats:
    """Limit the numbers of examples that clients claim to `factor` times their lower median.

    Half of the clients have the median or more, so none has a data weight above 2 factor / N,
    whatever is claimed. That the median is honest takes half of the clients to be.

    Args:
        examples: what each client says, shape (N,).
        factor: how much larger than the median a client may honestly be.

    Returns:
        What is believed, shape (N,).

    Example:
        >>> believed_examples([100, 120, 80, 10**9]).tolist()
        [100.0, 120.0, 80.0, 1000.0]
    """
    counts = np.asarray(examples, dtype=np.float64)
    limit = factor * float(np.sort(counts)[(len(counts) - 1) // 2])
    return np.minimum(counts, limit)


def check_updates(
    checks: Checks,
    watch: Watch,
    tasks: Sequence[ClientTask],
    updates: Sequence[ClientUpdate],
    layout: AdapterLayout,
    sketch: Sketch,
    unreadable: Sequence[Refusal] = (),
) -> Verdict:
    """Check the updates of one round against what was asked for.

    Args:
        checks: how strict to be.
        watch: what the last round left.
        tasks: what was asked for in this round.
        updates: what came back, in any order, of anyone; `client` must be whom the engine knows
            the sender to be, not whom it says it is, or one could have another excluded.
        layout: of what was to be trained, full size.
        sketch: "scaled", "residual" or "leading"; a residual update is multiplied by r/k when
            aggregated.
        unreadable: answers that were refused before they became updates; they count as well.

    Returns:
        Which updates to use, why not the others, and the state for the next round.
    """
    asked = {task.client: task for task in tasks}
    refusals = list(unreadable)
    sound: list[int] = []
    norms: list[tuple[float, float]] = []
    for position, update in enumerate(updates):
        reason = _fault(update, asked.pop(update.client, None), layout, sketch)
        if reason is not None:
            refusals.append((update.client, reason))
            continue
        sound.append(position)
        norms.append(_norms(update, layout, sketch))

    lora = (*watch.lora_norms, *(n[0] for n in norms))[-checks.window :]
    head = (*watch.head_norms, *(n[1] for n in norms))[-checks.window :]
    limits = (_limit(checks, lora), _limit(checks, head))
    accepted: list[int] = []
    for position, sizes in zip(sound, norms, strict=True):
        long = [
            f"norm of the {part} is {size:.3g}, the limit {limit:.3g}"
            for part, size, limit in zip(("LoRA part", "head"), sizes, limits, strict=True)
            if size > limit
        ]
        if long:
            refusals.append((updates[position].client, "; ".join(long)))
        else:
            accepted.append(position)

    counts = dict(watch.refused)
    for client, _ in refusals:
        counts[client] = counts.get(client, 0) + 1
    return Verdict(accepted, tuple(refusals), limits, Watch(lora, head, counts))


def _fault(
    update: ClientUpdate, task: ClientTask | None, layout: AdapterLayout, sketch: Sketch
) -> str | None:
    """Say what is wrong with an update, its length apart; None where nothing is."""
    if task is None:
        return "an answer that nobody asked for, or a second one"
    if update.round_index != task.round_index:
        return f"an answer to round {update.round_index} in round {task.round_index}"
    expected = (
        np.arange(task.sketch_rank)
        if sketch == "leading"
        else draw_components(
            task.seed, task.round_index, task.client, layout.rank, task.sketch_rank
        )
    )
    if not np.array_equal(update.components, expected):
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
    if not math.isfinite(update.train_loss):
        return f"its loss is {update.train_loss}"
    return None


def _norms(update: ClientUpdate, layout: AdapterLayout, sketch: Sketch) -> tuple[float, float]:
    """Return the norms of LoRA part, as for a client of full rank, and head."""
    lora, head = squared_norms(update.delta, layout)
    ratio = layout.rank / len(update.components)
    factor = {"residual": ratio, "scaled": 1 / ratio, "leading": 1.0}[sketch]
    return math.sqrt(lora * factor), math.sqrt(head)


def _limit(checks: Checks, norms: Sequence[float]) -> float:
    if not norms:
        return checks.norm_cap
    # The lower median: of two norms, one of them malicious, the smaller one counts.
    median = sorted(norms)[(len(norms) - 1) // 2]
    return min(checks.norm_cap, checks.norm_factor * median)
