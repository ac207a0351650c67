"""From an experiment to what `run`, `resume`, `serve` and `bench` run: in one way for all."""

import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from fedpace.core.plan import Plan
from fedpace.core.target import Target
from fedpace.experiment.build import Setup, Work, check, set_up
from fedpace.experiment.config import Experiment
from fedpace.experiment.evaluation_cost import LARGEST_SHARE, evaluation_share, told
from fedpace.experiment.methods import make_plan, planner_options
from fedpace.experiment.privacy import check_plan, privacy_of
from fedpace.experiment.schedule import as_begun, replanned
from fedpace.experiment.site import MakeSite, Site, in_process
from fedpace.experiment.warned import warn_of_buffer, warn_of_infeasible
from fedpace.planning.overlap.described import beats_seconds
from fedpace.planning.planner import MINIMISING, quantile_used
from fedpace.planning.renewal import LEAST_GAIN, Renewal, expected_seconds, renew_every
from fedpace.reporting.mlflow import require_mlflow
from fedpace.reporting.tensorboard import require_tensorboard
from fedpace.wireless.network import planning_clients

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """An experiment that is ready to run; nothing of it changes on the way."""

    experiment: Experiment
    site: Site
    target: Target | None
    setups: Mapping[str, Setup]
    """Every method, for the clients that are there at the beginning."""
    plans: Mapping[str, Plan]
    """Every method's plan for them."""


def prepare(experiment: Experiment, make_site: MakeSite | None = None) -> Prepared:
    """Load what an experiment needs, set its methods up and plan.

    Args:
        experiment: what is to be run.
        make_site: where the clients are; by default in this process.

    Raises:
        InputError: something in the experiment does not fit; nothing has been written.
    """
    check(experiment)
    text = experiment.training.target
    target = None if text is None else Target.parse(text)
    if experiment.output.tensorboard:
        require_tensorboard()
    if experiment.output.mlflow:
        require_mlflow()
    site = (make_site or in_process)(experiment)
    setups = {method: set_up(experiment, site.work, method) for method in experiment.methods}
    plans = {name: make_plan(experiment, each.network, name) for name, each in setups.items()}
    for name, made in plans.items():
        check_plan(experiment, name, made, site.work.network.clients)
        warn_of_infeasible(name, made)
        warn_of_buffer(setups[name], made)
    _tell_evaluation(experiment, site.work, plans)
    return Prepared(experiment, site, target, setups, plans)


def _tell_evaluation(experiment: Experiment, work: Work, plans: Mapping[str, Plan]) -> None:
    """Say how much of the computing will be evaluation, under the method with the most of it."""
    training = experiment.training
    waiting = [p.decision for p in plans.values() if p.decision.beat_seconds is None]
    if work.reading is None or not waiting or training.eval_seconds is not None:
        return
    share = max(evaluation_share(work.reading, each, training) for each in waiting)
    level = logging.WARNING if share > LARGEST_SHARE else logging.INFO
    logger.log(level, "%s", told(share, work.reading.held_out))


def set_up_for(prepared: Prepared, method: str, work: Work) -> tuple[Setup, Plan]:
    """Return a method and its first plan for the clients that are there when it begins."""
    setup, first = prepared.setups[method], prepared.plans[method]
    if len(first) < len(work.network.clients):  # newcomers, under an earlier method
        setup = set_up(prepared.experiment, work, method)
        first = make_plan(prepared.experiment, setup.network, method)
    return setup, first


def make_renewal(prepared: Prepared, setup: Setup, method: str, first: Plan) -> Renewal:
    """Return what observes every round, and plans anew only where the experiment asks for it.

    Args:
        prepared: the experiment.
        setup: of the method.
        method: its name.
        first: its first plan.
    """
    experiment = prepared.experiment
    options = planner_options(as_begun(experiment, first), method)
    by = quantile_used(options["planner"], options["quantile"])
    seconds = partial(expected_seconds, quantile=by)
    return renew_every(
        partial(replanned, options),
        planning_clients(setup.network),
        setup.network.system,
        every=experiment.planner.replan_every or sys.maxsize,
        threshold=LEAST_GAIN if options["planner"] in MINIMISING else None,
        objective=lambda made, clients, system: (
            seconds(made, clients, system)
            if made.beat_seconds is None
            else beats_seconds(made, clients, system, options.get("max_bias", 0.0))
        ),
        learn_availability=prepared.site.learn_availability,
        private=privacy_of(experiment) is not None,
        unbiased=partial(replanned, {**options, "max_bias": 0.0})
        if options.get("max_bias")
        else None,
    )
