"""Run an experiment: every method on the same work, one run folder."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from fedpace.core.errors import InputError
from fedpace.core.plan import Plan
from fedpace.core.record import RoundRecord, records_of
from fedpace.core.target import Target
from fedpace.engines.simulated import SimulatedEngine
from fedpace.experiment.build import Setup, Work, build_work, set_up
from fedpace.experiment.checkpoint import (
    Progress,
    begin,
    grow,
    read_progress,
    with_plan,
    write_progress,
)
from fedpace.experiment.config import Experiment, load_experiment
from fedpace.experiment.methods import make_plan, planner_options
from fedpace.experiment.network import planning_clients
from fedpace.federation.checks import Checks
from fedpace.federation.engine import Engine
from fedpace.federation.rounds import Federation, run_round
from fedpace.federation.server_optimizer import ServerOptimizer
from fedpace.planning.planner import MINIMISING, plan
from fedpace.planning.renewal import (
    LEAST_GAIN,
    Renewal,
    expected_seconds,
    renew_every,
)
from fedpace.reporting.metrics import Plans, speedups, summarise
from fedpace.reporting.tensorboard import Write, event_writer, require_tensorboard
from fedpace.run_folder.writer import (
    append_record,
    environment,
    free_folder,
    read_records,
    write_json,
    write_plans,
    write_records,
    write_text,
)
from fedpace.wireless.clients_file import write_clients

Show = Callable[[RoundRecord, int], None]
"""Called after every round with its record and the number of rounds at most."""


MakeEngine = Callable[[Setup, float, Renewal], Engine]
"""A method, the seconds on the clock so far, and what is known of the clients -> its engine."""


def _nobody_new(work: Work) -> Work:
    return work


@dataclass(slots=True, eq=False)
class Site:
    """Where a run's clients are."""

    work: Work
    """For the population as it is now."""
    make_engine: MakeEngine
    checks: Checks | None = None
    """What arrives is checked; None where the clients are our own."""
    learn_availability: bool = False
    """Weigh by how often each client answered so far, not by its profile."""
    show_plan: Callable[[Plan], None] = lambda plan: None
    """Called before every round with the plan in force."""
    newcomers: Callable[[Work], Work] = _nobody_new
    """Asked before every round: the work so far -> the same, or that of a population in which new
    clients stand behind the known ones."""


MakeSite = Callable[[Experiment], Site]


@dataclass(frozen=True, slots=True, eq=False)
class RunRecord:
    """What came of a run."""

    folder: Path
    summary: dict[str, Any]
    """The content of summary.json."""
    records: Sequence[RoundRecord]
    """Every round of every method."""


def run(
    experiment: Experiment,
    *,
    out: Path | str | None = None,
    show: Show = lambda record, rounds: None,
    site: MakeSite | None = None,
) -> RunRecord:
    """Run an experiment, by default on the virtual clock.

    Args:
        experiment: what to run; `load_experiment` reads one from a file.
        out: folder to make; by default runs/1, runs/2, ...
        show: called after every round with its record and the number of rounds at most.
        site: where the clients are; called once the folder is known to be free.

    Returns:
        The record of the run; the folder holds everything it does.

    Raises:
        InputError: something in the experiment is wrong; nothing was written.
    """
    folder = free_folder(Path("runs")) if out is None else Path(out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(
            f"{folder} exists and is not empty; name another folder with --out, or go on with "
            f"--resume {folder}"
        )
    target = _target(experiment)
    if experiment.output.tensorboard:
        require_tensorboard()
    place = (site or in_process)(experiment)
    work = place.work
    setups = {method: set_up(experiment, work, method) for method in experiment.methods}
    plans = {name: make_plan(experiment, each.network, name) for name, each in setups.items()}
    (folder / "checkpoint").mkdir(parents=True, exist_ok=True)
    write_text(folder / "experiment.toml", experiment.to_toml())
    write_clients(work.network.clients, folder / "clients.csv")
    write_plans(folder, work.network, {method: [(0, first)] for method, first in plans.items()})
    write_records(folder, [])
    return _run_methods(experiment, place, setups, plans, target, folder, show)


def resume(folder: Path | str, *, experiment: Experiment | None = None,
           show: Show = lambda record, rounds: None,
           site: MakeSite | None = None) -> RunRecord:  # fmt: skip
    """Go on with a run that was cut off; the result is that of the uninterrupted run.

    Args:
        folder: the run folder.
        experiment: refused if it is not the folder's; by default the folder's.
        show: called after every further round with its record.
        site: where the clients are; by default in this process.

    Raises:
        InputError: not a run folder, or of another experiment, data set or version.
    """
    folder = Path(folder)
    path = folder / "experiment.toml"
    if not path.exists():
        raise InputError(f"{folder} has no experiment.toml; it is not a run folder to resume")
    own = load_experiment(path)
    if experiment is not None and experiment != own:
        raise InputError(
            f"{folder} is of another experiment: {_difference(own, experiment)}; resume without "
            "an experiment file, or start a new run with --out"
        )
    target = _target(own)
    place = (site or in_process)(own)
    setups = {method: set_up(own, place.work, method) for method in own.methods}
    plans = {name: make_plan(own, each.network, name) for name, each in setups.items()}
    return _run_methods(own, place, setups, plans, target, folder, show)


def play(
    experiment: Experiment,
    work: Work,
    method: str,
    *,
    server_optimizer: ServerOptimizer | None = None,
) -> Iterator[tuple[RoundRecord, Plan]]:
    """Run one method without a run folder: its rounds, each with the plan in force, to its end.

    Args:
        experiment: as for `run`.
        work: what `build_work` made of it.
        method: one name.
        server_optimizer: in place of the experiment's, or of a published method's average.
    """
    setup = set_up(experiment, work, method, server_optimizer=server_optimizer)
    first = make_plan(experiment, setup.network, method)
    renewal = _make_renewal(experiment, setup, method)
    progress = begin(work, setup, first, {}, renewal.state)
    target = _target(experiment)
    site = Site(work, _simulated(experiment))
    for record, after in _rounds(experiment, site, setup, method, progress, renewal, target):
        yield record, progress.state.plan
        progress = after


def in_process(experiment: Experiment) -> Site:
    """All clients in this process, on the virtual clock."""
    return Site(build_work(experiment), _simulated(experiment))


def _simulated(experiment: Experiment) -> MakeEngine:
    return lambda setup, now, renewal: SimulatedEngine(
        setup.train, setup.network, setup.sent, seed=experiment.seed, now=now,
        upload_type=experiment.lora.upload_dtype,
    )  # fmt: skip


def _run_methods(
    experiment: Experiment,
    site: Site,
    setups: dict[str, Setup],
    plans: dict[str, Plan],
    target: Target | None,
    folder: Path,
    show: Show,
) -> RunRecord:
    records = read_records(folder)
    in_force: dict[str, Plans] = {method: [(0, first)] for method, first in plans.items()}
    initial: dict[str, float] | None = None
    done: dict[str, Progress] = {}
    for method, setup in setups.items():
        work, first = site.work, plans[method]
        if len(first) < len(work.network.clients):  # newcomers, under an earlier method
            setup = set_up(experiment, work, method)
            first = make_plan(experiment, setup.network, method)
        renewal = _make_renewal(experiment, setup, method)
        progress = read_progress(folder, method, work)
        if progress is None:
            initial = initial or work.evaluate(work.initial_adapter)
            progress = begin(work, setup, first, initial, renewal.state)
        initial, renewal.state = progress.initial, progress.renewal
        renewal.learn_availability = site.learn_availability
        # What was recorded after the last checkpoint will be recorded again, to the same bits.
        records = [r for r in records if r.method != method or r.round < progress.state.round_index]
        write_records(folder, records)

        def before_growth(progress: Progress, method: str = method) -> None:
            # In this order: who is in clients.csv but not in the checkpoint enters at its round.
            write_progress(folder, method, progress, site.work)
            write_clients(site.work.network.clients, folder / "clients.csv")

        rounds = _rounds(experiment, site, setup, method, progress, renewal, target, before_growth)
        with _events(experiment, folder, method, progress) as write_event:
            for record, progress in rounds:
                records.append(record)
                append_record(folder, record)
                write_event(record)
                every = experiment.output.checkpoint_every
                if progress.finished or progress.state.round_index % every == 0:
                    write_progress(folder, method, progress, site.work)
                    if site.learn_availability:
                        write_clients(
                            renewal.estimates(progress.state.plan), folder / "estimates.csv"
                        )
                show(record, experiment.training.rounds)
        done[method] = progress
        in_force[method] = progress.plans
        write_plans(folder, site.work.network, in_force)
        # PEFT's own layout of several adapters: the first at the top, the others beside it.
        name = "" if method == experiment.methods[0] else method
        site.work.save(progress.state.adapter, folder / "adapter" / name)
    summary = _summary(records, done, target)
    write_json(folder / "summary.json", summary)
    return RunRecord(folder, summary, records)


def _rounds(
    experiment: Experiment,
    site: Site,
    setup: Setup,
    method: str,
    progress: Progress,
    renewal: Renewal,
    target: Target | None,
    before_growth: Callable[[Progress], None] = lambda progress: None,
) -> Iterator[tuple[RoundRecord, Progress]]:
    """The loop: who is there, a round, its evaluation, the plan for the next."""
    training = experiment.training
    engine = site.make_engine(setup, progress.clock_seconds, renewal)
    federation = _federation(experiment, site, setup, method)
    while not progress.finished:
        site.work = site.newcomers(site.work)
        known, count = len(progress.state.plan), len(site.work.network.clients)
        if known < count:
            before_growth(progress)
            setup = set_up(experiment, site.work, method)
            anew = partial(_plan_anew, experiment, setup, method, renewal)
            progress = grow(progress, setup, renewal, anew)
            engine = site.make_engine(setup, engine.now(), renewal)
            federation = _federation(experiment, site, setup, method)
        site.show_plan(progress.state.plan)
        if site.learn_availability:
            federation = replace(federation, availability=renewal.availability())
        record, state = run_round(engine, federation, progress.state)
        last = state.round_index == training.rounds
        reached = False
        if last or state.round_index % training.eval_every == 0:
            evaluation = site.work.evaluate(state.adapter)
            record = replace(record, evaluation=evaluation)
            reached = target is not None and target.reached(evaluation)
        renewed = state.plan
        if setup.aggregation.unbiased:
            renewed = renewal(record, state.plan)
            record = replace(record, noise_scale=renewal.noise_record())
        progress = Progress(
            state=replace(state, plan=renewed),
            clock_seconds=engine.now(),
            plans=with_plan(progress.plans, state.round_index, renewed),
            initial=progress.initial,
            renewal=renewal.state,
            finished=last or reached,
        )
        yield replace(record, entered=tuple(range(known, count))), progress


def _plan_anew(
    experiment: Experiment, setup: Setup, method: str, renewal: Renewal, plan: Plan
) -> Plan:
    """Plan for a population that grew: as at a renewal, or before enough is known as at first."""
    made = renewal.anew(plan) if experiment.planner.replan_every else None
    return make_plan(experiment, setup.network, method) if made is None else made


def _federation(experiment: Experiment, site: Site, setup: Setup, method: str) -> Federation:
    clients = site.work.network.clients
    return Federation(
        method=method,
        layout=site.work.layout,
        data_weight=clients.data_weight,
        availability=clients.availability,
        aggregation=setup.aggregation,
        server_optimizer=setup.server_optimizer,
        seed=experiment.seed,
        checks=site.checks,
    )


def _events(
    experiment: Experiment, folder: Path, method: str, progress: Progress
) -> AbstractContextManager[Write]:
    if not experiment.output.tensorboard:
        return nullcontext(lambda record: None)
    return event_writer(folder / "tensorboard" / method, progress.state.round_index)


def _make_renewal(experiment: Experiment, setup: Setup, method: str) -> Renewal:
    """Observe every round; plan anew only where the experiment asks for it."""
    never = experiment.training.rounds + 1
    options = planner_options(experiment, method)
    return renew_every(
        partial(plan, **options),
        planning_clients(setup.network),
        setup.network.system,
        every=experiment.planner.replan_every or never,
        threshold=LEAST_GAIN if options["planner"] in MINIMISING else None,
        objective=partial(expected_seconds, quantile=options["quantile"]),
    )


def _summary(
    records: Sequence[RoundRecord],
    done: dict[str, Progress],
    target: Target | None,
) -> dict[str, Any]:
    methods = {
        method: summarise(records_of(records, method), progress.plans, target, progress.initial)
        for method, progress in done.items()
    }
    seconds = {name: entry["time_to_target_seconds"] for name, entry in methods.items()}
    return {
        "methods": methods,
        "speedup": speedups(seconds),  # type: ignore[arg-type]
        "target": None if target is None else str(target),
        "environment": environment(),
    }


def _target(experiment: Experiment) -> Target | None:
    text = experiment.training.target
    return None if text is None else Target.parse(text)


def _difference(one: Experiment, two: Experiment) -> str:
    """Name the first key in which two experiments differ."""
    a, b = one.model_dump(), two.model_dump()
    for section in a:
        if a[section] == b[section]:
            continue
        if not isinstance(a[section], dict):
            return f"{section} is {a[section]!r} there and {b[section]!r} here"
        key = next(k for k in a[section] if a[section][k] != b[section][k])
        return f"[{section}] {key} is {a[section][key]!r} there and {b[section][key]!r} here"
    return "no key differs"
