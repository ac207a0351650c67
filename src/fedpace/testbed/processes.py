"""Server and clients as processes of their own, each in its namespace.

They are forked from one process that has loaded the libraries, the clients from one that has also
loaded model and data: twenty times that would take minutes and gigabytes.
"""

import multiprocessing
import os
import select
import signal
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from fedpace.core.errors import FedPaceError, InputError
from fedpace.core.messages import ClientTask, ClientUpdate
from fedpace.core.record import RoundRecord
from fedpace.experiment.config import Experiment
from fedpace.experiment.parsing import parse
from fedpace.terminal import open_console
from fedpace.testbed.links import SERVER_ADDRESS, Place, client
from fedpace.testbed.spaces import enter

COMMAND = "fedpace testbed"
PORT = 8080
GATHER_SECONDS = 900.0
"""How long the server waits for its clients: each loads its model, all on one machine."""
PATIENCE_SECONDS = 600.0
_PRELOADED = ["fedpace.deploy.server", "fedpace.deploy.client", "fedpace.reporting.report"]


@dataclass(frozen=True, slots=True)
class Part:
    """A process of the testbed, and the line to it."""

    name: str
    process: BaseProcess
    line: Connection


def preload() -> None:
    """Have the libraries loaded where parts are forked from; before the first is started."""
    # The processors are shared, and idle OpenMP threads would spin.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    multiprocessing.get_context("forkserver").set_forkserver_preload(_PRELOADED)


def start(name: str, place: Place, scratch: Path, work: Callable[..., None], *args: Any) -> Part:
    """Start a part in its namespace; `work` is called there with its line and the arguments."""
    context = multiprocessing.get_context("forkserver")
    ours, theirs = context.Pipe()
    process = context.Process(
        target=_run, args=(name, place.space, str(scratch), theirs, work, args), daemon=True
    )
    process.start()
    theirs.close()
    return Part(name, process, ours)


def start_clients(run: str, experiment: Experiment, scratch: Path) -> list[Part]:
    """Start the process that loads what all clients share and becomes each of them.

    Returns:
        A part for each client, all with that process.
    """
    context = multiprocessing.get_context("forkserver")
    lines = [context.Pipe() for _ in range(experiment.data.clients)]
    process = context.Process(
        target=_become_clients,
        args=(run, experiment.model_dump(), str(scratch), [theirs for _, theirs in lines]),
        daemon=True,
    )
    process.start()
    for _, theirs in lines:
        theirs.close()
    return [Part(f"client-{n}", process, ours) for n, (ours, _) in enumerate(lines)]


def _become_clients(run: str, table: dict[str, Any], scratch: str, lines: list[Connection]) -> None:
    from fedpace.deploy.client_work import load_shared

    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # its threads would not live through the fork
    try:
        load_shared(parse(Experiment, table, "experiment"))
    except FedPaceError as error:
        return lines[0].send(("failed", isinstance(error, InputError), str(error)))
    count, children = len(lines), []
    for n in range(count):
        child = os.fork()
        if not child:
            for later in lines[n + 1 :]:
                later.close()
            space = client(run, n).space
            _run(f"client-{n}", space, scratch, lines[n], take_part, (n, count, scratch))
            os._exit(0)
        lines[n].close()
        children.append(child)
    for child in children:
        os.waitpid(child, 0)


def _run(
    name: str, space: str, scratch: str, line: Connection, work: Callable[..., None],
    args: Sequence[Any],
) -> None:  # fmt: skip
    enter(space)
    _end_with(line)  # with a thread, so after the process has moved
    os.environ["TMPDIR"], tempfile.tempdir = scratch, None
    if name != "server":
        log = os.open(f"{scratch}/{name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
    try:
        work(line, *args)
    except FedPaceError as error:
        line.send(("failed", isinstance(error, InputError), str(error)))
    except KeyboardInterrupt:
        pass
    except BaseException as error:
        traceback.print_exc()
        line.send(("failed", False, f"{type(error).__name__}: {error}"))


def _end_with(line: Connection) -> None:
    """End this process when the other end of its line closes, however that one's process died.

    Its parent in the kernel's eyes is the fork server, which lives as long as any of its children.
    """
    hung_up = select.poll()
    hung_up.register(line.fileno(), 0)

    def wait() -> None:
        hung_up.poll()
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait, daemon=True).start()


def serve(
    line: Connection, table: dict[str, Any], folder: str, resumed: bool, scratch: str
) -> None:
    """Run the experiment, or go on with it, as `fedpace serve` does, over the shaped network."""
    from fedpace.deploy.own_server import own_server
    from fedpace.deploy.server import conduct
    from fedpace.deploy.server_view import ServerView
    from fedpace.deploy.waiting import Waiting
    from fedpace.engines.flower.arrivals import Arrivals
    from fedpace.testbed.grid import ShapedGrid

    experiment = parse(Experiment, table, "experiment")
    waiting = Waiting(experiment.data.clients, GATHER_SECONDS, PATIENCE_SECONDS, closed=True)

    def ask(*words: Any) -> Any:
        line.send(words)
        return line.recv()

    class View(ServerView):
        """Shows a round, and has it held against what was predicted."""

        def show_record(self, record: RoundRecord, rounds: int) -> None:
            super().show_record(record, rounds)
            ask("record", record)

    with (
        View(open_console(stderr=True)) as view,
        # Without TLS and keys: nobody else can enter these namespaces but root.
        own_server(SERVER_ADDRESS, PORT, Path(scratch, "superlink.log")) as grid,
    ):
        assert isinstance(grid, Arrivals)
        conduct(
            ShapedGrid(grid, ask), experiment, waiting, view, out=Path(folder),
            resumed=Path(folder) if resumed else None, command=COMMAND,
        )  # fmt: skip


def take_part(line: Connection, number: int, count: int, scratch: str) -> None:
    """Join as `fedpace join --partition` does, with training stretched to the profile."""
    from fedpace.deploy.client import join
    from fedpace.deploy.client_work import Own
    from fedpace.deploy.flower_patches import TIMEOUT_VARIABLE
    from fedpace.deploy.uplink_pacing import SLOW_ANSWER_SECONDS, Link
    from fedpace.engines.flower.client import ClientWork

    over = 0.0

    def paced(work: ClientWork) -> ClientWork:
        def make_train(*kind: Any) -> Callable[[Sequence[ClientTask]], Sequence[ClientUpdate]]:
            return partial(train, work.make_train(*kind))

        return ClientWork(work.exchange, make_train)

    def train(
        inner: Callable[[Sequence[ClientTask]], Sequence[ClientUpdate]],
        tasks: Sequence[ClientTask],
    ) -> Sequence[ClientUpdate]:
        nonlocal over
        began = time.monotonic()
        line.send(("fetched", tasks[0].sketch_rank))
        seconds = line.recv()
        updates = inner(tasks)
        left = seconds - (time.monotonic() - began)
        over = max(0.0, -left)
        time.sleep(max(0.0, left))
        return updates

    def pace(rate_bps: float, upload_bytes: int) -> None:
        line.send(("send", upload_bytes, over))
        line.recv()

    class Controller:
        """The link is the kernel's: nothing of it is kept here."""

        def __init__(self, server: str, tls: bool) -> None:
            self.link = Link(server, pace, {TIMEOUT_VARIABLE: str(SLOW_ANSWER_SECONDS)})

        def __enter__(self) -> Link:
            return self.link

        def __exit__(self, *error: object) -> None:
            pass

    own = Own(f"client-{number:0{len(str(count))}d}", None, (number, count))
    join(
        f"{SERVER_ADDRESS}:{PORT}", own, print, log=Path(scratch, f"node-{number}.log"),
        wait_seconds=GATHER_SECONDS, controller=Controller, around=paced,
    )  # fmt: skip


def end(parts: Sequence[Part], seconds: float = 5.0) -> None:
    """End what still runs of these."""
    for process in {part.process for part in parts}:
        process.terminate()
    until = time.monotonic() + seconds
    for part in parts:
        part.process.join(max(0.0, until - time.monotonic()))
        if part.process.is_alive():
            part.process.kill()
        with suppress(OSError):
            part.line.close()
