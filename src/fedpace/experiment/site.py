"""Where a run's clients are: in this process, or wherever whoever makes a site has them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from fedpace.core.plan import Plan
from fedpace.engines.overlapping import OverlappingSimulation
from fedpace.experiment.build import Setup, Work, build_work
from fedpace.experiment.config import Experiment
from fedpace.experiment.workers import with_workers
from fedpace.federation.checks import Checks
from fedpace.federation.engine import Engine
from fedpace.planning.renewal import Renewal

Clock = Literal["virtual", "measured"]
"""Whose seconds the records have: computed for the network, or measured."""

MakeEngine = Callable[[Setup, float, Callable[[], Renewal]], Engine]
"""A method, the seconds on the clock so far, and who tells what is known of the clients by then ->
its engine."""


def _nobody_new(work: Work) -> Work:
    return work


@dataclass(frozen=True, slots=True, eq=False)
class Site:
    """Where a run's clients are."""

    work: Work
    """For the population with which the run begins, or goes on."""
    make_engine: MakeEngine
    checks: Checks | None = None
    """What arrives is checked; None where the clients are our own."""
    server_seed: int | None = None
    """What the server alone knows and draws from (`Federation.server_seed`); None: the run's."""
    learn_availability: bool = False
    """Weigh by how often each client answered so far, not by its profile."""
    clock: Clock = "virtual"
    show_plan: Callable[[Plan], None] = lambda plan: None
    """Called before every round with the plan in force."""
    newcomers: Callable[[Work], Work] = _nobody_new
    """Asked before every round: the work so far -> the same, or that of a population in which new
    clients stand behind the known ones."""


MakeSite = Callable[[Experiment], Site]
"""Called once the experiment is checked and the run folder is claimed."""


def in_process(experiment: Experiment, workers: int | None = None) -> Site:
    """Return the site of clients that are all on this machine, on the virtual clock.

    Args:
        experiment: what is to be run.
        workers: processes that train, on one thread each; None trains in this one.
    """

    def make_engine(setup: Setup, now: float, renewal: Callable[[], Renewal]) -> Engine:
        return OverlappingSimulation(
            setup.train, setup.network, setup.exchange, seed=experiment.seed, now=now
        )  # fmt: skip

    work = build_work(experiment)
    if workers is not None:
        work = with_workers(experiment, work, workers)
    return Site(work, make_engine)
