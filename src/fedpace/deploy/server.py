"""`fedpace serve`: an experiment with clients on other machines."""

import math
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from flwr.serverapp import Grid
from flwr.superlink.grid import HttpGrid

from fedpace.core.errors import InputError, RunError
from fedpace.core.messages import ClientTask, ClientUpdate
from fedpace.core.record import RoundRecord
from fedpace.deploy.deadline import Deadline
from fedpace.deploy.flower_patches import POLL_SECONDS
from fedpace.deploy.handshake import make_offer
from fedpace.deploy.listening import Listening, remember
from fedpace.deploy.population import (
    first_population,
    grown_population,
    known_names,
    limited_claims,
    room_for,
    same_population,
)
from fedpace.deploy.server_view import ServerView
from fedpace.deploy.standing import Standing
from fedpace.deploy.waiting import Waiting
from fedpace.engines.flower.arrivals import Arrivals
from fedpace.engines.flower.asked import Asked
from fedpace.engines.flower.echoes import Echoes
from fedpace.engines.flower.messages import Wire
from fedpace.engines.flower.overlapping import OverlappingFlower
from fedpace.engines.flower.roster import Roster
from fedpace.engines.flower.simulation import SimulatedFleet
from fedpace.engines.flower.traffic import Traffic
from fedpace.experiment.build import (
    Setup,
    Work,
    build_model,
    examples_of,
    model_facts,
    tokenised,
)
from fedpace.experiment.config import Experiment
from fedpace.experiment.fingerprint import work_fingerprint
from fedpace.experiment.methods import beats_would_be_guessed
from fedpace.experiment.privacy import privacy_of
from fedpace.experiment.run import RunRecord, resume, run
from fedpace.experiment.site import Clock, Site
from fedpace.federation.checks import Checks
from fedpace.federation.engine import Engine
from fedpace.lora import evaluate, save_adapter
from fedpace.lora.card import describe_adapter
from fedpace.lora.trial import tried
from fedpace.planning.renewal import Renewal
from fedpace.run_folder.reader import read_records

COMMAND = "fedpace serve"
_TRIED = 1000
"""So many examples the server's model is tried on; the clients try it on theirs."""
OWN_NODES = Traffic(poll_seconds=POLL_SECONDS)


_WAITS = (
    "rounds wait for all: how fast the devices are is not known; name them in [network] clients, "
    "or set [training] schedule = 'overlapping'"
)


def conduct(
    grid: Grid,
    experiment: Experiment,
    waiting: Waiting,
    view: ServerView,
    *,
    out: Path | None = None,
    resumed: Path | None = None,
    listening: Listening | None = None,
    traffic: Traffic = OWN_NODES,
    clock: Clock = "measured",
    command: str = COMMAND,
) -> RunRecord:
    """Run an experiment over a Flower grid.

    Args:
        grid: Flower's.
        experiment: what to run.
        waiting: for whom, how long.
        view: what a person sees.
        out: folder to make.
        resumed: or folder to go on with.
        listening: where the server does, to be remembered in the folder.
        traffic: what Flower's own requests take; by default with the nodes of `fedpace join`.
        clock: "virtual" computes the seconds, as `fedpace run` does, for nodes that are simulated.
        command: with which a person goes on with the run.

    Raises:
        InputError: something in the experiment or the folder is wrong.
        RunError: nobody came.
    """
    if isinstance(grid, HttpGrid):
        grid = Arrivals(grid)
    if clock == "measured" and beats_would_be_guessed(experiment):
        training = experiment.training.model_copy(update={"schedule": "synchronous"})
        experiment = experiment.model_copy(update={"training": training})
        view.note(_WAITS)
    standing = Standing([] if resumed is None else read_records(resumed))
    folder = [] if resumed is None else [resumed]

    def show(record: RoundRecord, rounds: int) -> None:
        standing.learn(record)
        view.show_record(record, rounds)
        for roster in rosters:
            standing.bar_excluded(roster)

    rosters: list[Roster] = []
    site = partial(
        _site, grid, waiting, view, resumed, folder, listening, rosters, standing, traffic, clock
    )
    if resumed is not None:
        record = resume(resumed, experiment=experiment, show=show, site=site, command=command,
                        note=view.note)  # fmt: skip
    else:
        record = run(experiment, out=out, show=show, site=site, command=command,
                     begun=folder.append)  # fmt: skip
    for roster in rosters:
        roster.dismiss()
    return record


def _site(
    grid: Grid,
    waiting: Waiting,
    view: ServerView,
    resumed: Path | None,
    folder: Sequence[Path],
    listening: Listening | None,
    rosters: list[Roster],
    standing: Standing,
    traffic: Traffic,
    clock: Clock,
    experiment: Experiment,
) -> Site:
    """Load the server's part, wait for the clients, and make the engine's maker."""
    if experiment.lora.start_from is not None:
        raise InputError(
            "[lora] start_from is for `fedpace run`: the devices of `fedpace serve` do not have "
            "that folder; leave it out"
        )
    if privacy_of(experiment) is not None and experiment.output.checkpoint_every > 1:
        raise InputError(
            f"[output] checkpoint_every = {experiment.output.checkpoint_every} with [privacy]: "
            "rounds that clients have seen and no checkpoint has counted would be played again; "
            "set it to 1"
        )
    before, virtual = None if resumed is None else known_names(resumed), clock == "virtual"
    if virtual:  # simulated clients are ours: they are believed, and stay
        waiting = replace(waiting, closed=True)
        experiment = _trusting(experiment)
    view.say("loading model and data")
    train, held_out = examples_of(experiment, train_elsewhere=True)
    adapted = build_model(experiment, train.label_names)
    sample = train.take(range(min(len(train), _TRIED)))
    tokens = tokenised(experiment, sample, adapted)
    view.say(tried(adapted, tokens, experiment.model.max_length).told())
    run_name = secrets.token_hex(8)
    roster = Roster(grid, make_offer(experiment, adapted, train.label_names, run_name))
    rosters.append(roster)
    roster.most = room_for(experiment, adapted.layout)
    wanted = (waiting.clients or experiment.data.clients) if before is None else len(before)
    _gather(roster, waiting, wanted, view, before)
    view.names = roster.names
    network = (
        first_population(experiment, adapted.layout, roster)
        if resumed is None or before is None
        else same_population(experiment, adapted.layout, roster, resumed)
    )

    for text in limited_claims(experiment, roster):
        view.note(text)
    standing.bar_excluded(roster)
    remember(folder[0], listening, roster.expected)

    def newcomers(work: Work) -> Work:
        new = roster.admit()
        view.show_refused(roster.refused)
        if not new:
            return work
        view.show_newcomers(roster.names, new)
        for text in limited_claims(experiment, roster):
            view.note(text)
        remember(folder[0], listening, roster.expected)
        return replace(work, network=grown_population(experiment, work.network, roster))

    echoes, asked = Echoes(), Asked()  # of the clients, whatever the method

    def make_engine(setup: Setup, now: float, renewal: Callable[[], Renewal]) -> Engine:
        wire = Wire(run_name, setup.method, setup.exchange)
        if virtual:
            return SimulatedFleet(
                grid, roster, wire, setup.network, seed=experiment.seed,
                patience_seconds=waiting.patience_seconds, now=now,
            )  # fmt: skip
        return OverlappingFlower(
            grid,
            roster,
            wire,
            setup.network,
            experiment.seed,
            Deadline(renewal, setup.network, experiment.seed, waiting.patience_seconds),
            began=now,
            accepted=standing.accepted,
            refused=standing.refused,
            traffic=traffic,
            echoes=echoes,
            asked=asked,
            show=view.show_status,
        )

    evaluated = tokenised(experiment, held_out, adapted)
    work = Work(
        layout=adapted.layout,
        initial_adapter=adapted.initial,
        make_train=lambda sketch, trained: _not_here,
        evaluate=lambda adapter: evaluate(adapted, adapter, evaluated),
        save=partial(save_adapter, adapted),
        network=network,
        request_bits=(0.0, 0.0)
        if virtual
        else (8.0 * traffic.message_up, 8.0 * traffic.message_down),
        fingerprint=work_fingerprint(adapted, [held_out], evaluated=evaluated, gains=network.gains),
        facts=(facts := model_facts(experiment, train.label_names)),
        describe=partial(describe_adapter, adapted, facts),
    )
    return Site(
        work,
        make_engine,
        None if virtual else _checks(experiment),
        # Clients know the run's seed; anew at each start, as a round that is played again may have
        # other answers, and the same noise on both would fall out of their difference.
        server_seed=None if virtual or privacy_of(experiment) is None else secrets.randbits(128),
        learn_availability=not virtual,
        clock=clock,
        show_plan=view.show_plan,
        newcomers=newcomers,
    )


def _trusting(experiment: Experiment) -> Experiment:
    """Return the experiment with clients believed to have as many examples as they say."""
    believed = experiment.checks.model_copy(
        update={"examples_factor": math.inf, "most_weight": 1.0}
    )
    return experiment.model_copy(update={"checks": believed})


def _checks(experiment: Experiment) -> Checks:
    given = experiment.checks
    cap = math.inf if given.norm_cap is None else given.norm_cap
    # A scale of all norms would let one client's update decide over another's.
    factor = given.norm_factor if privacy_of(experiment) is None else math.inf
    return Checks(factor, cap, given.window, given.strikes)


def _gather(
    roster: Roster,
    waiting: Waiting,
    wanted: int,
    view: ServerView,
    before: Sequence[str] | None,
) -> None:
    """Wait until the clients are there; a resumed run waits for those it had."""
    end = time.monotonic() + waiting.seconds
    while True:
        roster.poll()
        there = [m.name for m in roster.present() if before is None or m.name in before]
        view.show_arrivals(there, wanted, roster.refused)
        if len(there) >= wanted or (there and time.monotonic() > end):
            break
        if time.monotonic() > end:
            raise RunError(
                f"no client came in {waiting.seconds:.0f} s; start clients with: fedpace join "
                "HOST:PORT --data FOLDER, or wait longer with --wait"
            )
        time.sleep(0.2)
    if before is not None and len(there) < len(before):
        missing = sorted(set(before) - set(there))
        view.note(f"going on without {', '.join(missing)}; they may still come back")
    if waiting.closed:
        roster.most = 1  # full with whoever is there
    roster.begin(before)


def _not_here(tasks: Sequence[ClientTask]) -> Sequence[ClientUpdate]:
    raise AssertionError("a server trains nothing")
