"""What `fedpace serve` and `fedpace join` do between their arguments and their output."""

import platform
import re
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from fedpace.config import load_experiment
from fedpace.core.errors import InputError
from fedpace.deploy.certificates import LOOPBACK


def serve(
    path: Path | None,
    methods: Sequence[str],
    overrides: Sequence[str],
    host: str,
    port: int,
    clients: int | None,
    wait: float,
    patience: float,
    out: Path | None,
    resume: Path | None,
    log: Path | None,
    console: Console,
    errors: Console,
) -> None:
    """`fedpace serve`: start Flower's server, run or resume, write the report."""
    if resume is not None and out is not None:
        raise InputError("--out and --resume exclude each other; a resumed run stays in its folder")
    if resume is not None and path is None:
        path = resume / "experiment.toml"
    experiment = load_experiment(path, overrides)
    if methods:
        experiment = experiment.model_copy(update={"methods": list(methods)})
    if host not in LOOPBACK:
        raise InputError(
            f"--host {host}: this version listens on loopback alone; bring it to other machines "
            "with: fedpace keys, fedpace certificates, and the proxy of docs/deployment.md"
        )
    # Only now: these load torch, which a mistake in the file need not wait for.
    from fedpace.deploy.server import Waiting, conduct, own_server
    from fedpace.deploy.view import ServerView
    from fedpace.reporting.report import write_report
    from fedpace.reporting.tables import summary_table

    waiting = Waiting(clients or experiment.data.clients, wait, patience)
    log = log or Path("fedpace-serve.log")
    with own_server(host, port, log) as grid, ServerView(errors) as view:
        view.say(f"listening on {host}:{port}")
        record = conduct(grid, experiment, waiting, view, out=out, resumed=resume)
    console.print(summary_table(record.summary))
    console.print(f"report:  {escape(str(write_report(record.folder)))}", highlight=False)
    console.print(f"adapter: {escape(str(record.folder / 'adapter'))}", highlight=False)


def join_server(
    server: str,
    data: Path | None,
    name: str | None,
    model: str | None,
    partition: str | None,
    wait: float,
    log: Path | None,
    console: Console,
) -> None:
    """`fedpace join`: say what this client brings, and take part."""
    if (data is None) == (partition is None):
        raise InputError("give the client's examples, --data FOLDER, or --partition I/N; one of "
                         "them")  # fmt: skip
    share = None
    if partition is not None:
        found = re.fullmatch(r"(\d+)/(\d+)", partition)
        if not found or int(found[1]) >= int(found[2]):
            raise InputError(f"--partition {partition!r} is not I/N with I of 0 to N - 1")
        share = int(found[1]), int(found[2])
        # In the order of their numbers, so that positions are those of the virtual clock.
        name = name or f"client-{share[0]:0{len(found[2])}d}"
    name = name or platform.node()
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise InputError(
            f"--name {name!r} cannot name a client; use letters, digits, '.', '_' and '-'"
        )
    from fedpace.deploy.client import Own, join

    def say(text: str) -> None:
        console.print(
            f"{time.strftime('%H:%M:%S')} {escape(name or '')}: {escape(text)}",
            highlight=False, soft_wrap=True,
        )  # fmt: skip

    join(server, Own(name, data, share, model), say, log=log, wait_seconds=wait)
