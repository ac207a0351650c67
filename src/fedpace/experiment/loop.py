"""The loop over a method's rounds, in plain sight."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from fedpace.core.errors import InputError
from fedpace.core.plan import Plan
from fedpace.core.record import RoundRecord
from fedpace.experiment.build import Setup, Work, set_up
from fedpace.experiment.checkpoint import Good, Progress, begin, good, grow, with_plan
from fedpace.experiment.methods import make_plan
from fedpace.experiment.prepare import Prepared, make_renewal
from fedpace.experiment.privacy import privacy_of
from fedpace.experiment.schedule import as_begun, last_step, of_as_much_work, steps_per_round
from fedpace.experiment.server_rate import rate_factor, tuned_for
from fedpace.experiment.warned import warn_of_infeasible
from fedpace.federation.beats import run_beat
from fedpace.federation.buffered import run_buffer
from fedpace.federation.divergence import fault_of_evaluation
from fedpace.federation.engine import Engine
from fedpace.federation.privacy import rounds_within
from fedpace.federation.rounds import Federation, ServerState, possible_weights, run_round
from fedpace.federation.server_optimizer import ServerOptimizer
from fedpace.federation.underway import OverlappingEngine
from fedpace.planning.renewal import Renewal
from fedpace.wireless.network import planning_clients

_NO_ROOM = (
    "with the clients that entered, one more round would pass [privacy] max_epsilon; the method "
    "ends here"
)
"""What is said where newcomers leave no room for a round."""

LEAST_STEP_FACTOR = 2.0**-10
"""A run that diverges with a thousandth of its server step will not be saved by a smaller one."""


@dataclass(slots=True, eq=False)
class Course:
    """A method on its way: the one thing that changes while a run runs."""

    method: str
    work: Work
    """For the population as it is now."""
    setup: Setup
    """For the population as it is now."""
    renewal: Renewal
    """The newest; its state is `progress.renewal`."""
    progress: Progress


def rounds(
    prepared: Prepared,
    course: Course,
    before_growth: Callable[[Work], None] = lambda work: None,
) -> Iterator[RoundRecord]:
    """Play a method to its end: who is there, a round, its evaluation, the plan for the next.

    Args:
        prepared: the experiment.
        course: where the method is; after each record, where it is then.
        before_growth: called with the work for all before new clients enter.

    Yields:
        The record of each round.
    """
    site, training = prepared.site, prepared.experiment.training
    engine = site.make_engine(course.setup, course.progress.clock_seconds, lambda: course.renewal)
    seen = prepared.plans.get(course.method)
    while not course.progress.finished:
        work = site.newcomers(course.work)
        known, count = len(course.progress.state.plan), len(work.network.clients)
        if known < count:
            before_growth(work)
            _grow(prepared, course, work)
            engine = site.make_engine(course.setup, engine.now(), lambda: course.renewal)
            if _spent(prepared, course, course.progress.state):
                warnings.warn(_NO_ROOM, stacklevel=2)
                course.progress = replace(course.progress, finished=True)
                break
        state = course.progress.state
        site.show_plan(state.plan)
        warn_of_infeasible(course.method, state.plan, seen)
        seen = before = state.plan
        record, state = _step(engine, _federation(prepared, course), state)
        last = state.round_index >= last_step(prepared.experiment, state.plan)
        reached, kept = False, course.progress.good
        every = training.eval_every * steps_per_round(prepared.experiment, state.plan)
        due = (
            _passed(every, state.round_index - 1, state.round_index)
            if training.eval_seconds is None
            else _passed(training.eval_seconds, course.progress.clock_seconds, engine.now())
        )
        if record.diverged is None and (last or due):
            evaluation = course.work.evaluate(state.adapter)
            record = replace(
                record, evaluation=evaluation, diverged=fault_of_evaluation(evaluation)
            )
            reached = prepared.target is not None and prepared.target.reached(evaluation)
            if kept is not None and record.diverged is None:
                kept = good(state)
        ended, waits = False, state.plan.beat_seconds is None
        measures = prepared.experiment.planner.replan_every or training.server_decay != "none"
        if record.diverged is not None:
            record, state, ended = _diverged(record, state, kept)
        elif course.setup.aggregation.unbiased and (waits or measures):
            # The noise scale is measured from independent samples of one adapter's updates; those
            # of beats come from adapters a few beats apart, and serve where something follows it.
            made, course.renewal = course.renewal.after(record, state.plan)
            state = replace(state, plan=made)
            if record.privacy is None:  # or it would be of the noise that was added
                record = replace(record, noise_scale=course.renewal.noise_record())
        elif site.learn_availability:
            course.renewal = course.renewal.watched(record)
        if record.privacy is not None and not (last or reached or ended):
            ended = _spent(prepared, course, state)
            record = replace(record, privacy={**record.privacy, "ended": float(ended)})
        course.progress = Progress(
            state=state,
            clock_seconds=engine.now(),
            plans=with_plan(course.progress.plans, state.round_index, state.plan),
            initial=course.progress.initial,
            renewal=course.renewal.state,
            finished=last or reached or ended,
            good=kept,
            tuned=tuned_for(prepared.experiment, before, course.renewal, course.progress.tuned),
        )
        yield replace(record, entered=tuple(range(known, count)))


def play(
    prepared: Prepared, method: str, *, server_optimizer: ServerOptimizer | None = None
) -> Iterator[tuple[RoundRecord, Plan]]:
    """Run one method without a run folder: its rounds, each with the plan in force, to its end.

    Args:
        prepared: the experiment.
        method: one name, of the experiment's methods or another.
        server_optimizer: in place of the experiment's, or of a published method's average.
    """
    work = prepared.site.work
    setup = set_up(prepared.experiment, work, method, server_optimizer=server_optimizer)
    first = prepared.plans.get(method)
    if first is None:
        first = make_plan(prepared.experiment, setup.network, method)
    renewal = make_renewal(prepared, setup, method, first)
    back = prepared.experiment.training.on_divergence == "step-back"
    progress = begin(work, setup, first, {}, renewal.state, steps_back=back)
    course = Course(method, work, setup, renewal, progress)
    plan = first
    for record in rounds(prepared, course):
        yield record, plan
        plan = course.progress.state.plan


def _passed(every: float, before: float, now: float) -> bool:
    """Whether a multiple of `every` lies behind `before` and not behind `now`."""
    return now // every > before // every


def _diverged(
    record: RoundRecord, state: ServerState, kept: Good | None
) -> tuple[RoundRecord, ServerState, bool]:
    """Step back to what was good with half the server step, or say that the method has ended."""
    factor = state.step_factor / 2
    if kept is None or factor < LEAST_STEP_FACTOR:
        return record, state, True
    state = replace(
        state, adapter=kept.adapter, optimizer=kept.optimizer, memory=kept.memory,
        step_factor=factor, underway=(),
    )  # fmt: skip
    return replace(record, stepped_back_to=kept.round_index), state, False


def _grow(prepared: Prepared, course: Course, work: Work) -> None:
    """Take in who entered."""
    experiment, method = prepared.experiment, course.method
    course.work, course.setup = work, (setup := set_up(experiment, work, method))
    course.renewal = course.renewal.grown(planning_clients(setup.network))
    # As at a renewal, or before enough is known as at first.
    renews = experiment.planner.replan_every
    state = course.progress.state
    plan = course.renewal.anew(state.plan) if renews else None
    if plan is None:
        later = as_begun(experiment, state.plan) if state.round_index else experiment
        plan = make_plan(later, setup.network, method)
    if state.round_index:
        plan = of_as_much_work(plan, state.plan)
    course.progress = grow(course.progress, setup, plan, course.renewal.state)


def _spent(prepared: Prepared, course: Course, state: ServerState) -> bool:
    """Say whether one more round would pass some client's max_epsilon."""
    federation = _federation(prepared, course)
    if federation.privacy is None or federation.privacy.max_epsilon is None:
        return False
    possible = possible_weights(federation, state)
    return rounds_within(state.spent, state.plan, possible, federation.privacy, 1)[0] == 0


def _step(
    engine: Engine, federation: Federation, state: ServerState
) -> tuple[RoundRecord, ServerState]:
    """Move from one step of the server to the next, as the method's schedule has it."""
    if federation.aggregation.buffer is None and state.plan.beat_seconds is None:
        return run_round(engine, federation, state)
    if not isinstance(engine, OverlappingEngine):
        raise InputError(
            f"{type(engine).__name__} waits for all who take part in a round, so it has neither "
            "overlapping rounds nor asynchronous methods; set [training] schedule = 'synchronous'"
        )
    run = run_beat if federation.aggregation.buffer is None else run_buffer
    return run(engine, federation, state)


def _federation(prepared: Prepared, course: Course) -> Federation:
    clients, site = course.work.network.clients, prepared.site
    return Federation(
        method=course.method,
        layout=course.work.layout,
        data_weight=clients.data_weight,
        availability=course.renewal.availability()
        if site.learn_availability
        else clients.availability,
        aggregation=course.setup.aggregation,
        server_optimizer=course.setup.server_optimizer,
        seed=prepared.experiment.seed,
        checks=site.checks,
        rate_factor=rate_factor(
            prepared.experiment, course.progress.state.plan, course.renewal, course.progress.tuned
        ),
        privacy=privacy_of(prepared.experiment),
        server_seed=site.server_seed,
    )
