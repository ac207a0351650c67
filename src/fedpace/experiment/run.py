"""The life of a run folder: claimed, filled method by method, ended with a summary."""

import shlex
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from fedpace.core.arguments import PATH, takes
from fedpace.core.errors import InputError, Interrupted, RunError, described
from fedpace.core.plan import Plans
from fedpace.core.record import RoundRecord
from fedpace.experiment.build import Work
from fedpace.experiment.checkpoint import Progress, begin, read_progress, write_progress
from fedpace.experiment.config import Experiment, load_experiment
from fedpace.experiment.loop import Course, rounds
from fedpace.experiment.population import check_population
from fedpace.experiment.prepare import Prepared, make_renewal, prepare, set_up_for
from fedpace.experiment.request import difference
from fedpace.experiment.schedule import last_step
from fedpace.experiment.site import MakeSite
from fedpace.experiment.unused import check_used
from fedpace.federation.divergence import fault_of_evaluation
from fedpace.reporting.curves import Write
from fedpace.reporting.metrics import summarise_run
from fedpace.reporting.mlflow import mlflow_writer
from fedpace.reporting.tensorboard import event_writer
from fedpace.run_folder import schema
from fedpace.run_folder.atomic import write_json, write_text
from fedpace.run_folder.claim import held, new_folder
from fedpace.run_folder.environment import environment
from fedpace.run_folder.reader import read_records
from fedpace.run_folder.writer import append_record, write_adapter, write_plans, write_records
from fedpace.wireless.clients_file import write_clients

Show = Callable[[RoundRecord, int], None]
"""Called after every round with its record and the number of rounds at most."""


Note = Callable[[str], None]
"""Called with a line that a person should read."""


@dataclass(frozen=True, slots=True, eq=False)
class RunRecord:
    """What came of a run."""

    folder: Path
    summary: dict[str, Any]
    """The content of summary.json."""
    records: Sequence[RoundRecord]
    """Every round of every method."""

    def curves(self) -> dict[str, list[Any]]:
        """Return every evaluation as columns of equal length: `pandas.DataFrame(done.curves())`.

        Returns:
            "method", "round" (from 1), "clock_seconds", "upload_bits" (of that round), and a column
            for each metric; None where an evaluation does not have it.
        """
        evaluated = [r for r in self.records if r.evaluation is not None]
        metrics = sorted({name for r in evaluated for name in r.evaluation or {}})
        return {
            "method": [r.method for r in evaluated],
            "round": [r.round + 1 for r in evaluated],
            "clock_seconds": [r.clock_seconds for r in evaluated],
            "upload_bits": [r.upload_bits for r in evaluated],
            **{name: [(r.evaluation or {}).get(name) for r in evaluated] for name in metrics},
        }


@takes(experiment=Experiment, out=PATH)
def run(
    experiment: Experiment,
    *,
    out: Path | str | None = None,
    show: Show = lambda record, rounds: None,
    site: MakeSite | None = None,
    command: str = "fedpace run",
    begun: Callable[[Path], None] = lambda folder: None,
) -> RunRecord:
    """Run an experiment, by default on the virtual clock.

    Args:
        experiment: what to run; `load_experiment` reads one from a file.
        out: folder to make; by default runs/1, runs/2, ...
        show: called after every round with its record and the number of rounds at most.
        site: where the clients are; called once the folder is claimed.
        command: with which a person goes on with the run.
        begun: called with the folder, once it is claimed and before `site`.

    Returns:
        The record of the run; the folder holds everything it does.

    Raises:
        InputError: something in the experiment is wrong, as a target that the model has before
            training, and nothing was written; or the folder is not empty or in use.
        RunError: a file cannot be written.
    """
    check_used(experiment)
    experiment = experiment.checked()
    with new_folder(None if out is None else Path(out), Path("runs")) as folder:
        path = folder / schema.EXPERIMENT
        # At once: whoever finds the folder after an interruption can go on with it.
        write_text(path, experiment.to_toml())
        begun(folder)
        with _interruptible(folder, command):
            try:
                prepared = prepare(experiment, site)
                initial = _initial(prepared, prepared.site.work)
            except Exception:
                path.unlink()
                raise
            told = _Told(show, note=warnings.warn, command=command)
            return _fill(folder, prepared, told, initial)


@takes(folder=PATH, experiment=Experiment)
def resume(
    folder: Path | str,
    *,
    experiment: Experiment | None = None,
    show: Show = lambda record, rounds: None,
    site: MakeSite | None = None,
    command: str = "fedpace run",
    note: Note = warnings.warn,
) -> RunRecord:
    """Go on with a run that was cut off; the result is that of the uninterrupted run.

    Args:
        folder: the run folder.
        experiment: refused if it is not the folder's; by default the folder's.
        show: called after every further round with its record.
        site: where the clients are; by default in this process.
        command: with which a person goes on with the run.
        note: told in a line where a damaged checkpoint is passed over for the one before.

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
        return _fill(folder, prepare(own, site), _Told(show, note, command))


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


@dataclass(frozen=True, slots=True)
class _Told:
    """Who is told what, and how."""

    show: Show
    note: Note
    command: str


def _fill(
    folder: Path, prepared: Prepared, told: _Told, initial: dict[str, float] | None = None
) -> RunRecord:
    """Run every method from where the folder says that it is, and sum up.

    Args:
        folder: of the run.
        prepared: the experiment.
        told: who is told what.
        initial: the evaluation of what every method begins with; measured here where it is not
            known, as in a run that was cut off before its first checkpoint.
    """
    work, experiment = prepared.site.work, prepared.experiment
    records = read_records(folder)
    in_force: dict[str, Plans] = {method: [(0, p)] for method, p in prepared.plans.items()}
    # A resumed run may have been cut off before any of its files; what is there stays.
    if (folder / schema.CLIENTS).exists():
        check_population(folder, experiment, work.network.clients)
    else:
        write_clients(work.network.clients, folder / schema.CLIENTS)
    if not (folder / schema.PLAN).exists():
        first = prepared.setups[experiment.methods[0]]
        write_plans(folder, first.network, in_force)
    done: dict[str, Progress] = {}
    for method in experiment.methods:
        course = _course(folder, prepared, method, work, initial, told.note)
        records = _before(folder, records, course)
        write_records(folder, records)
        for record in _recorded(folder, prepared, course):
            records.append(record)
            told.show(record, last_step(experiment, course.progress.state.plan))
        work, done[method] = course.work, course.progress
        initial = course.progress.initial
        in_force[method] = course.progress.plans
        write_plans(folder, course.setup.network, in_force)
        # PEFT's own layout of several adapters: the first at the top, the others beside it.
        name = "" if method == experiment.methods[0] else method
        write_adapter(folder, name, partial(work.save, course.progress.state.adapter))
        work.describe(folder / schema.ADAPTER / name)
    summary = summarise_run(
        records,
        {method: progress.plans for method, progress in done.items()},
        {method: progress.initial for method, progress in done.items()},
        prepared.target,
    )
    summary |= {
        "clock": prepared.site.clock,
        "command": told.command,
        "label_names": work.facts.get("label_names"),
        "model": {key: value for key, value in work.facts.items() if key != "label_names"},
        "tokens": work.tokens,
        "environment": environment(),
    }
    if work.interview is not None:
        final = {method: progress.state.adapter for method, progress in done.items()}
        summary |= work.interview.report(work.initial_adapter, final)
    write_json(folder / schema.SUMMARY, summary)
    return RunRecord(folder, summary, records)


def _before(folder: Path, records: Sequence[RoundRecord], course: Course) -> list[RoundRecord]:
    """Return the records without what is played again, to the same bits, after the checkpoint.

    Raises:
        InputError: rounds before the checkpoint are not there.
    """
    at = course.progress.state.round_index
    kept = [r for r in records if r.method != course.method or r.round < at]
    found = [r.round for r in kept if r.method == course.method]
    if found != list(range(at)):
        lost = next((n for n in range(at) if n not in found), at)
        raise InputError(
            f"{folder / schema.ROUNDS} has not each of the {at} rounds of {course.method} that "
            f"its checkpoint has (round {lost + 1} is the first missing or double); restore the "
            "file, or start a new run with --out"
        )
    return kept


def _course(
    folder: Path,
    prepared: Prepared,
    method: str,
    work: Work,
    initial: dict[str, float] | None,
    note: Note,
) -> Course:
    """Return a method where its checkpoint left it, or at its beginning."""
    setup, first = set_up_for(prepared, method, work)
    renewal = make_renewal(prepared, setup, method, first)
    progress = read_progress(folder, method, work, note)
    if progress is None:
        progress = begin(
            work,
            setup,
            first,
            initial or _initial(prepared, work),
            renewal.state,
            steps_back=prepared.experiment.training.on_divergence == "step-back",
        )
    renewal = replace(renewal, state=progress.renewal)
    return Course(method, work, setup, renewal, progress)


def _initial(prepared: Prepared, work: Work) -> dict[str, float]:
    """Evaluate what every method begins with.

    Raises:
        InputError: the target holds already; a time to it would be told that no training took.
        RunError: the evaluation is no number.
    """
    evaluation = work.evaluate(work.initial_adapter)
    if (fault := fault_of_evaluation(evaluation)) is not None:
        model = prepared.experiment.model
        raise RunError(
            f"before any training {fault}: [model] name = {model.name!r} with dtype = "
            f"{model.dtype!r} gives no numbers on this data; choose another dtype or model"
        )
    if prepared.target is not None:
        prepared.target.refuse_held(evaluation, "[training] target")
    return evaluation


def _recorded(folder: Path, prepared: Prepared, course: Course) -> Iterator[RoundRecord]:
    """Play a method; each round is on disk before it is yielded."""
    output, site = prepared.experiment.output, prepared.site

    def before_growth(work: Work) -> None:
        # In this order: who is in clients.csv but not in the checkpoint enters at its round.
        write_progress(folder, course.method, course.progress, work)
        write_clients(work.network.clients, folder / schema.CLIENTS)

    with _trackers(prepared, folder, course) as track:
        for record in rounds(prepared, course, before_growth):
            append_record(folder, record)
            track(record)
            progress = course.progress
            if progress.finished or progress.state.round_index % output.checkpoint_every == 0:
                write_progress(folder, course.method, progress, course.work)
                if site.learn_availability:
                    estimates = course.renewal.estimates(progress.state.plan)
                    write_clients(estimates, folder / schema.ESTIMATES)
            yield record


@contextmanager
def _trackers(prepared: Prepared, folder: Path, course: Course) -> Iterator[Write]:
    """Open the trackers that the experiment asks for; gives what adds a round to each."""
    output, writers = prepared.experiment.output, []
    with ExitStack() as stack:
        if output.tensorboard:
            where = folder / schema.TENSORBOARD / course.method
            first = course.progress.state.round_index
            writers.append(stack.enter_context(event_writer(where, first)))
        if output.mlflow:
            parameters = prepared.experiment.flat()
            opened = mlflow_writer(folder / schema.MLFLOW, course.method, parameters)
            writers.append(stack.enter_context(opened))

        def write(record: RoundRecord) -> None:
            for each in writers:
                each(record)

        yield write
