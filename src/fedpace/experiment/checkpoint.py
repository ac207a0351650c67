"""A method in the middle of its run: what goes from round to round, and into its checkpoint."""

import importlib.metadata
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fedpace.core.adapter import Array
from fedpace.core.errors import InputError
from fedpace.core.plan import Plan, Plans
from fedpace.experiment.build import Setup, Work
from fedpace.federation.checks import Watch
from fedpace.federation.privacy import nothing_spent
from fedpace.federation.rounds import ServerState
from fedpace.federation.underway import from_arrays, to_arrays, to_json
from fedpace.planning.renewal_state import RenewalState
from fedpace.run_folder.checkpoint import read_checkpoint, write_checkpoint
from fedpace.run_folder.schema import Checkpoint


@dataclass(frozen=True, slots=True, eq=False)
class Progress:
    """All of it goes into the checkpoint."""

    state: ServerState
    clock_seconds: float
    plans: Plans
    """Every plan so far with the round from which it was in force."""
    initial: dict[str, float]
    """The evaluation before the first round."""
    renewal: RenewalState
    finished: bool = False
    good: "Good | None" = None
    """Where the run steps back to; None where it does not."""
    tuned: float = math.nan
    """What `experiment.server_rate.tuned_for` said."""


@dataclass(frozen=True, slots=True, eq=False)
class Good:
    """What the last evaluation found good."""

    round_index: int
    """The round that came next."""
    adapter: Mapping[str, Array]
    optimizer: Mapping[str, Array]
    memory: Mapping[str, Array]


def good(state: ServerState) -> Good:
    """Return a state as one to step back to."""
    return Good(state.round_index, state.adapter, state.optimizer, state.memory)


def begin(
    work: Work,
    setup: Setup,
    first: Plan,
    initial: dict[str, float],
    renewal: RenewalState,
    *,
    steps_back: bool = False,
) -> Progress:
    """Return where a method begins; with `steps_back` it may return there."""
    adapter, memory = setup.aggregation.begin(work.initial_adapter)
    state = ServerState(0, adapter, setup.server_optimizer.init(adapter), first, memory)
    kept = good(state) if steps_back else None
    return Progress(state, 0.0, [(0, first)], initial, renewal, good=kept)


def grow(progress: Progress, setup: Setup, plan: Plan, renewal: RenewalState) -> Progress:
    """Take in the clients of whom `progress` knows nothing yet; the others keep what they have.

    Args:
        progress: of the first clients.
        setup: of all; the new ones stand behind the others.
        plan: for all.
        renewal: of all.
    """
    at, kept = progress.state, progress.good
    if kept is not None:
        kept = replace(kept, memory=setup.aggregation.grow(kept.memory))
    return replace(
        progress,
        state=replace(at, plan=plan, memory=setup.aggregation.grow(at.memory)),
        plans=with_plan(progress.plans, at.round_index, plan),
        renewal=renewal,
        good=kept,
    )


def with_plan(plans: Plans, round_index: int, newest: Plan) -> Plans:
    """Add a plan that is in force from `round_index` on; a mere change of verdict is none."""
    first, old = plans[-1]
    if newest is old:
        return plans
    if newest.decision is old.decision:
        return [*plans[:-1], (first, newest)]
    return [*(plans[:-1] if first == round_index else plans), (round_index, newest)]


def write_progress(folder: Path, method: str, progress: Progress, work: Work) -> None:
    """Write a method's checkpoint."""
    at = progress.state
    state = {
        "version": importlib.metadata.version("fedpace"),
        "fingerprint": dict(work.fingerprint),
        "round": at.round_index,
        "clock_seconds": progress.clock_seconds,
        "plans": [[first, made.to_json()] for first, made in progress.plans],
        "initial": progress.initial,
        "renewal": progress.renewal.to_json(),
        "watch": progress.state.watch.to_json(),
        "step_factor": at.step_factor,
        "underway": to_json(at.underway),
        "in_vain": {str(client): beats for client, beats in at.in_vain.items()},
        "finished": progress.finished,
        "tuned": None if math.isnan(progress.tuned) else progress.tuned,
        "good_round": None if progress.good is None else progress.good.round_index,
    }
    more: dict[str, Mapping[str, Any]] = {"underway": to_arrays(at.underway)}
    if len(at.spent):
        more["privacy"] = {"spent": at.spent}
    if (kept := progress.good) is not None:
        more |= {f"good-{part}": getattr(kept, part) for part in ("adapter", "optimizer", "memory")}
    write_checkpoint(folder, method, Checkpoint(at.adapter, at.optimizer, at.memory, state, more))


def read_progress(
    folder: Path, method: str, work: Work, note: Callable[[str], None]
) -> Progress | None:
    """Read a method's checkpoint; None where it has none yet.

    Args:
        folder: the run folder.
        method: one name.
        work: what is found now.
        note: told where the checkpoint before the newest one is used.

    Raises:
        InputError: it is damaged, or of other work; the message names what of it is another.
    """
    found = read_checkpoint(folder, method, note)
    if found is None:
        return None
    state = found.state
    then, now = state["fingerprint"], work.fingerprint
    # Of a part that an earlier version did not hash nobody knows what it was.
    if changed := [part for part in then if then[part] != now.get(part)]:
        raise InputError(
            f"{folder} was made with other {' and '.join(changed)} than are found now (files, "
            "package or Python changed); resume with what it was started with, or start a new run"
        )
    plans = [(int(first), Plan.from_json(made)) for first, made in state["plans"]]
    kept = None
    if state["good_round"] is not None:
        parts = (found.more.get(f"good-{part}", {}) for part in ("adapter", "optimizer", "memory"))
        kept = Good(state["good_round"], *parts)
    return Progress(
        state=ServerState(
            state["round"],
            found.adapter,
            found.optimizer,
            plans[-1][1],
            found.memory,
            Watch.from_json(state["watch"]),
            state["step_factor"],
            from_arrays(state["underway"], found.more.get("underway", {})),
            {int(client): beats for client, beats in state["in_vain"].items()},
            found.more.get("privacy", {}).get("spent", nothing_spent()),
        ),
        clock_seconds=state["clock_seconds"],
        plans=plans,
        initial=state["initial"],
        renewal=RenewalState.from_json(state["renewal"]),
        finished=state["finished"],
        good=kept,
        # Checkpoints of earlier versions lack it.
        tuned=math.nan if (tuned := state.get("tuned")) is None else tuned,
    )
