"""`fedpace serve`: an experiment with clients on other machines."""

import errno
import importlib.metadata
import math
import secrets
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
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
from fedpace.deploy.flower_process import start, stop
from fedpace.deploy.handshake import make_offer
from fedpace.deploy.population import (
    first_population,
    grown_population,
    known_names,
    limited_claims,
    room_for,
    same_population,
)
from fedpace.deploy.runtime import Endpoint, server_grid, start_run
from fedpace.deploy.secure_server import Protection, open_door
from fedpace.deploy.server_view import ServerView
from fedpace.deploy.upload_times import VARIABLE, UploadTimes
from fedpace.deploy.waiting import Waiting
from fedpace.engines.flower.arrivals import Arrivals
from fedpace.engines.flower.echoes import Echoes
from fedpace.engines.flower.engine import FlowerEngine
from fedpace.engines.flower.messages import Wire
from fedpace.engines.flower.roster import Roster
from fedpace.engines.flower.traffic import Traffic
from fedpace.experiment.build import (
    Setup,
    Work,
    build_model,
    evaluator,
    examples_of,
    model_facts,
    tokenised,
    work_fingerprint,
)
from fedpace.experiment.config import Experiment
from fedpace.experiment.run import RunRecord, resume, run
from fedpace.experiment.site import Site
from fedpace.federation.checks import Checks
from fedpace.federation.engine import Engine
from fedpace.lora import save_adapter
from fedpace.lora.card import describe_adapter
from fedpace.lora.trial import try_out
from fedpace.planning.renewal import Renewal
from fedpace.run_folder.reader import read_records

CLAIM_SECONDS = 8.0
"""How long a port that is in use may become free."""
COMMAND = "fedpace serve"
_TRIED = 1000
"""So many examples the server's model is tried on; the clients try it on theirs."""
OWN_NODES = Traffic(poll_seconds=POLL_SECONDS)


def conduct(
    grid: Grid,
    experiment: Experiment,
    waiting: Waiting,
    view: ServerView,
    *,
    out: Path | None = None,
    resumed: Path | None = None,
    traffic: Traffic = OWN_NODES,
) -> RunRecord:
    """Run an experiment over a Flower grid.

    Args:
        grid: Flower's.
        experiment: what to run.
        waiting: for whom, how long.
        view: what a person sees.
        out: folder to make.
        resumed: or folder to go on with.
        traffic: what Flower's own requests take; by default with the nodes of `fedpace join`.

    Raises:
        InputError: something in the experiment or the folder is wrong.
        RunError: nobody came.
    """
    if isinstance(grid, HttpGrid):
        grid = Arrivals(grid)
    records = [] if resumed is None else read_records(resumed)
    used = {(r.method, r.round): [p.client for p in r.participants] for r in records}

    def show(record: RoundRecord, rounds: int) -> None:
        used[record.method, record.round] = [p.client for p in record.participants]
        view.show_record(record, rounds)

    def accepted(client: int) -> int:
        return sum(client in people for people in used.values())

    rosters: list[Roster] = []
    site = partial(_site, grid, waiting, view, resumed, rosters, accepted, traffic)
    if resumed is not None:
        record = resume(resumed, experiment=experiment, show=show, site=site, command=COMMAND,
                        note=view.note)  # fmt: skip
    else:
        record = run(experiment, out=out, show=show, site=site, command=COMMAND)
    for roster in rosters:
        roster.dismiss()
    return record


@contextmanager
def own_server(
    host: str,
    port: int,
    log: Path,
    protection: Protection | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Iterator[Grid]:
    """Start Flower's server and open a run on it; both end with the context.

    Args:
        host: an address of this machine; without protection a loopback address.
        port: that clients connect to.
        log: file for what Flower says.
        protection: certificates and keys; with them Flower's own port is another one, on loopback.
        say: called with what changes among the keys.

    Raises:
        InputError: the port is taken.
        RunError: Flower's server does not start.
    """
    _claim(host, port)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fedpace-")))
        options: list[object] = ["--isolation", "process",
                                 "--disable-runtime-dependency-installation"]  # fmt: skip
        ca = None
        if protection is None:
            inner_host, inner_port = host, port
            options += ["--insecure"]
        else:
            inner_host, inner_port = "127.0.0.1", _free_port()
            options += protection.superlink_options()
            ca = protection.certificates.ca
        options += ["--host", inner_host, "--port", inner_port]
        uploads = folder / "uploads.jsonl"
        process = start("superlink", options, folder / "home", log, {VARIABLE: str(uploads)})
        stack.callback(stop, process)
        _wait_for_port(inner_host, inner_port, lambda: process.poll() is None, log)
        endpoint = Endpoint(f"{inner_host}:{inner_port}", ca)
        if protection is not None:
            stack.enter_context(open_door(host, port, endpoint.address, protection, log, say))
        (folder / "app").mkdir()
        start_run(endpoint, folder / "app", importlib.metadata.version("fedpace"))
        grid = stack.enter_context(server_grid(endpoint))
        yield Arrivals(grid, seconds_a_byte=UploadTimes(uploads).take)


def _site(
    grid: Grid,
    waiting: Waiting,
    view: ServerView,
    resumed: Path | None,
    rosters: list[Roster],
    accepted: Callable[[int], int],
    traffic: Traffic,
    experiment: Experiment,
) -> Site:
    """Load the server's part, wait for the clients, and make the engine's maker."""
    before = None if resumed is None else known_names(resumed)
    view.say("loading model and data")
    train, held_out = examples_of(experiment)
    adapted = build_model(experiment, train.label_names)
    sample = train.take(range(min(len(train), _TRIED)))
    try_out(adapted, tokenised(experiment, sample, adapted))
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

    def newcomers(work: Work) -> Work:
        new = roster.admit()
        view.show_refused(roster.refused)
        if not new:
            return work
        view.show_newcomers(roster.names, new)
        for text in limited_claims(experiment, roster):
            view.note(text)
        return replace(work, network=grown_population(experiment, work.network, roster))

    echoes = Echoes()  # of the clients, whatever the method

    def make_engine(setup: Setup, now: float, renewal: Renewal) -> Engine:
        aggregation = setup.aggregation
        return FlowerEngine(
            grid,
            roster,
            Wire(
                run_name,
                adapted.layout,
                aggregation.sketch,
                aggregation.trained,
                experiment.lora.upload_dtype,
            ),
            setup.network,
            experiment.seed,
            Deadline(renewal, setup.network, experiment.seed, waiting.patience_seconds),
            began=now,
            accepted=accepted,
            traffic=traffic,
            echoes=echoes,
            show=view.show_status,
        )

    work = Work(
        layout=adapted.layout,
        initial_adapter=adapted.initial,
        make_train=lambda sketch, trained: _not_here,
        evaluate=evaluator(experiment, adapted, held_out),
        save=partial(save_adapter, adapted),
        network=network,
        request_bits=(8.0 * traffic.message_up, 8.0 * traffic.message_down),
        fingerprint=work_fingerprint(adapted, [held_out]),
        facts=(facts := model_facts(experiment, train.label_names)),
        describe=partial(describe_adapter, adapted, facts),
    )
    return Site(
        work,
        make_engine,
        _checks(experiment),
        learn_availability=True,
        clock="measured",
        show_plan=view.show_plan,
        newcomers=newcomers,
    )


def _checks(experiment: Experiment) -> Checks:
    given = experiment.checks
    cap = math.inf if given.norm_cap is None else given.norm_cap
    return Checks(given.norm_factor, cap, given.window, given.strikes)


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


def _claim(host: str, port: int) -> None:
    """Wait for the port a little: Flower's server of one that was killed ends just after it."""
    end = time.monotonic() + CLAIM_SECONDS
    while True:
        try:
            return socket.create_server((host, port)).close()
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > end:
                raise InputError(
                    f"cannot listen on {host} port {port} ({error.strerror}); "
                    "choose another --port, or end what uses it"
                ) from None
            time.sleep(0.2)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def _wait_for_port(host: str, port: int, alive: Callable[[], bool], log: Path) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            socket.create_connection((host, port), 1.0).close()
        except OSError:
            if not alive():
                break
            time.sleep(0.05)
        else:
            return
    raise RunError(f"Flower's server did not start; it says why in {log}")
