"""A method in the middle of its run: what goes from round to round, and into its checkpoint."""

import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from fedpace.core.errors import InputError
from fedpace.core.plan import Plan, Plans
from fedpace.experiment.build import Setup, Work
from fedpace.experiment.network import planning_clients
from fedpace.federation.checks import Watch
from fedpace.federation.rounds import ServerState
from fedpace.planning.renewal import Renewal, RenewalState
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


def begin(
    work: Work,
    setup: Setup,
    first: Plan,
    initial: dict[str, float],
    renewal: RenewalState,
) -> Progress:
    """Return where a method begins."""
    adapter, memory = setup.aggregation.begin(work.initial_adapter)
    state = ServerState(0, adapter, setup.server_optimizer.init(adapter), first, memory)
    return Progress(state, 0.0, [(0, first)], initial, renewal)


def grow(
    progress: Progress, setup: Setup, renewal: Renewal, plan_anew: Callable[[Plan], Plan]
) -> Progress:
    """Take in the clients of whom `progress` knows nothing yet; the others keep what they have.

    Args:
        progress: of the first clients.
        setup: of all; the new ones stand behind the others.
        renewal: grows with it.
        plan_anew: the plan in force, for the first clients -> one for all.
    """
    at = progress.state
    renewal.grow(planning_clients(setup.network))
    made = plan_anew(at.plan)
    return replace(
        progress,
        state=replace(at, plan=made, memory=setup.aggregation.grow(at.memory)),
        plans=with_plan(progress.plans, at.round_index, made),
        renewal=renewal.state,
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
        "fingerprint": work.fingerprint,
        "round": at.round_index,
        "clock_seconds": progress.clock_seconds,
        "plans": [[first, made.to_json()] for first, made in progress.plans],
        "initial": progress.initial,
        "renewal": progress.renewal.to_json(),
        "watch": progress.state.watch.to_json(),
        "finished": progress.finished,
    }
    write_checkpoint(folder, method, Checkpoint(at.adapter, at.optimizer, at.memory, state))


def read_progress(folder: Path, method: str, work: Work) -> Progress | None:
    """Read a method's checkpoint; None where it has none yet.

    Raises:
        InputError: it is of other examples or another adapter.
    """
    found = read_checkpoint(folder, method)
    if found is None:
        return None
    state = found.state
    if state["fingerprint"] != work.fingerprint:
        raise InputError(
            f"{folder} was made with other examples or another adapter than are found now (data "
            "files, Python or model changed); resume where it was started, or start a new run"
        )
    plans = [(int(first), Plan.from_json(made)) for first, made in state["plans"]]
    # Checkpoints of earlier versions have none.
    watch = Watch.from_json(state["watch"]) if "watch" in state else Watch()
    return Progress(
        state=ServerState(
            state["round"], found.adapter, found.optimizer, plans[-1][1], found.memory, watch
        ),
        clock_seconds=state["clock_seconds"],
        plans=plans,
        initial=state["initial"],
        renewal=RenewalState.from_json(state["renewal"]),
        finished=state["finished"],
    )
