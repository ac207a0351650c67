"""The life of a run folder: claimed, filled method by method, ended with a summary."""

import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedpace.core.errors import InputError, Interrupted, RunError, described
from fedpace.core.plan import Plans
from fedpace.core.record import RoundRecord
from fedpace.experiment.build import Work
from fedpace.experiment.checkpoint import Progress, begin, read_progress, write_progress
from fedpace.experiment.config import Experiment, difference, load_experiment
from fedpace.experiment.loop import Course, rounds
from fedpace.experiment.prepare import Prepared, make_renewal, prepare, set_up_for
from fedpace.experiment.site import MakeSite
from fedpace.reporting.metrics import summarise_run
from fedpace.reporting.tensorboard import Write, event_writer
from fedpace.run_folder import schema
from fedpace.run_folder.claim import held, new_folder
from fedpace.run_folder.environment import environment
from fedpace.run_folder.reader import read_records
from fedpace.run_folder.writer import (
    append_record,
    write_json,
    write_plans,
    write_records,
    write_text,
)
from fedpace.wireless.clients_file import write_clients

Show = Callable[[RoundRecord, int], None]
"""Called after every round with its record and the number of rounds at most."""


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
    command: str = "fedpace run",
) -> RunRecord:
    """Run an experiment, by default on the virtual clock.

    Args:
        experiment: what to run; `load_experiment` reads one from a file.
        out: folder to make; by default runs/1, runs/2, ...
        show: called after every round with its record and the number of rounds at most.
        site: where the clients are; called once the folder is claimed.
        command: with which a person goes on with the run.

    Returns:
        The record of the run; the folder holds everything it does.

    Raises:
        InputError: something in the experiment is wrong, and nothing was written; or the folder
            is not empty or in use.
        RunError: a file cannot be written.
    """
    with new_folder(None if out is None else Path(out), Path("runs")) as folder:
        path = folder / schema.EXPERIMENT
        # At once: whoever finds the folder after an interruption can go on with it.
        write_text(path, experiment.to_toml())
        with _interruptible(folder, command):
            try:
                prepared = prepare(experiment, site)
            except Exception:
                path.unlink()
                raise
            return _fill(folder, prepared, show, command)


def resume(
    folder: Path | str,
    *,
    experiment: Experiment | None = None,
    show: Show = lambda record, rounds: None,
    site: MakeSite | None = None,
    command: str = "fedpace run",
) -> RunRecord:
    """Go on with a run that was cut off; the result is that of the uninterrupted run.

    Args:
        folder: the run folder.
        experiment: refused if it is not the folder's; by default the folder's.
        show: called after every further round with its record.
        site: where the clients are; by default in this process.
        command: with which a person goes on with the run.

    Raises:
        InputError: not a run folder, in use, or of another experiment, data set or version.
        RunError: a file cannot be written.
    """
    folder = Path(folder)
    path = folder / schema.EXPERIMENT
    if not path.exists():
        raise InputError(f"{folder} has no {path.name}; it is not a run folder to resume")
    own = load_experiment(path)
    if experiment is not None and experiment != own:
        raise InputError(
            f"{folder} is of another experiment: {difference(own, experiment)}; resume without "
            "an experiment file, or start a new run with --out"
        )
    with held(folder), _interruptible(folder, command):
        return _fill(folder, prepare(own, site), show, command)


@contextmanager
def _interruptible(folder: Path, command: str) -> Iterator[None]:
    """Say how to go on, whatever ends the run that fills this folder."""
    again = f"{command} --resume {shlex.quote(str(folder))}"
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted; go on with {again}") from None
    except OSError as error:
        raise RunError(f"{described(error)}; once that is mended, go on with {again}") from error


def _fill(folder: Path, prepared: Prepared, show: Show, command: str) -> RunRecord:
    """Run every method from where the folder says that it is, and sum up."""
    work, experiment = prepared.site.work, prepared.experiment
    records = read_records(folder)
    in_force: dict[str, Plans] = {method: [(0, p)] for method, p in prepared.plans.items()}
    # A resumed run may have been cut off before any of its files; what is there stays.
    if not (folder / schema.CLIENTS).exists():
        write_clients(work.network.clients, folder / schema.CLIENTS)
    if not (folder / schema.PLAN).exists():
        write_plans(folder, work.network, in_force)
    done: dict[str, Progress] = {}
    for method in experiment.methods:
        before = next(iter(done.values()), None)
        course = _course(folder, prepared, method, work, None if before is None else before.initial)
        # What was recorded after the last checkpoint will be recorded again, to the same bits.
        at = course.progress.state.round_index
        records = [r for r in records if r.method != method or r.round < at]
        write_records(folder, records)
        for record in _recorded(folder, prepared, course):
            records.append(record)
            show(record, experiment.training.rounds)
        work, done[method] = course.work, course.progress
        in_force[method] = course.progress.plans
        write_plans(folder, work.network, in_force)
        # PEFT's own layout of several adapters: the first at the top, the others beside it.
        name = "" if method == experiment.methods[0] else method
        work.save(course.progress.state.adapter, folder / schema.ADAPTER / name)
    summary = summarise_run(
        records,
        {method: progress.plans for method, progress in done.items()},
        {method: progress.initial for method, progress in done.items()},
        prepared.target,
    )
    summary |= {"clock": prepared.site.clock, "command": command, "environment": environment()}
    write_json(folder / schema.SUMMARY, summary)
    return RunRecord(folder, summary, records)


def _course(
    folder: Path,
    prepared: Prepared,
    method: str,
    work: Work,
    initial: dict[str, float] | None,
) -> Course:
    """Return a method where its checkpoint left it, or at its beginning."""
    setup, first = set_up_for(prepared, method, work)
    renewal = make_renewal(prepared, setup, method)
    progress = read_progress(folder, method, work)
    if progress is None:
        initial = initial or work.evaluate(work.initial_adapter)
        progress = begin(work, setup, first, initial, renewal.state)
    renewal.state = progress.renewal
    return Course(method, work, setup, renewal, progress)


def _recorded(folder: Path, prepared: Prepared, course: Course) -> Iterator[RoundRecord]:
    """Play a method; each round is on disk before it is yielded."""
    output, site = prepared.experiment.output, prepared.site

    def before_growth(work: Work) -> None:
        # In this order: who is in clients.csv but not in the checkpoint enters at its round.
        write_progress(folder, course.method, course.progress, work)
        write_clients(work.network.clients, folder / schema.CLIENTS)

    with _events(prepared, folder, course) as write_event:
        for record in rounds(prepared, course, before_growth):
            append_record(folder, record)
            write_event(record)
            progress = course.progress
            if progress.finished or progress.state.round_index % output.checkpoint_every == 0:
                write_progress(folder, course.method, progress, course.work)
                if site.learn_availability:
                    estimates = course.renewal.estimates(progress.state.plan)
                    write_clients(estimates, folder / schema.ESTIMATES)
            yield record


def _events(prepared: Prepared, folder: Path, course: Course) -> AbstractContextManager[Write]:
    if not prepared.experiment.output.tensorboard:
        return nullcontext(lambda record: None)
    where = folder / schema.TENSORBOARD / course.method
    return event_writer(where, course.progress.state.round_index)
