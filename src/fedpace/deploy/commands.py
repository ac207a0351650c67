"""What `fedpace serve` and `fedpace join` do between their arguments and their output."""

import platform
import re
from pathlib import Path

from rich.console import Console

from fedpace.core.errors import InputError
from fedpace.deploy.certificates import LOOPBACK, read_certificates
from fedpace.deploy.listening import Listening
from fedpace.deploy.secure_server import Protection
from fedpace.deploy.waiting import Waiting
from fedpace.experiment.request import Request


def serve(
    request: Request, listening: Listening, waiting: Waiting, console: Console, errors: Console
) -> None:
    """`fedpace serve`: start Flower's server, run or resume, write the report."""
    experiment = request.experiment()
    host, port = listening.host, listening.port
    protection = _protection(host, listening.certificates, listening.keys)
    errors.print("starting", highlight=False)
    # Only now: these load torch, which a mistake in the file need not wait for.
    from fedpace.deploy.own_server import own_server
    from fedpace.deploy.server import conduct
    from fedpace.deploy.server_view import ServerView
    from fedpace.terminal import show_outcome

    log = listening.log or Path("fedpace-serve.log")
    with (
        ServerView(errors) as view,
        own_server(host, port, log, protection, view.note) as grid,
    ):
        view.note(f"listening on {host}:{port}")
        record = conduct(
            grid, experiment, waiting, view, out=request.out, resumed=request.resume,
            listening=listening,
        )  # fmt: skip
    show_outcome(record, console)


def join_server(
    server: str,
    data: Path | None,
    name: str | None,
    model: str | None,
    partition: str | None,
    wait: float,
    log: Path | None,
    ca: Path | None,
    key: Path | None,
    pace: bool,
    console: Console,
) -> None:
    """`fedpace join`: say what this client brings, and take part."""
    if (data is None) == (partition is None):
        raise InputError("give the client's examples, --data FOLDER, or --partition I/N; one of "
                         "them")  # fmt: skip
    if (ca is None) != (key is None):
        raise InputError("--ca and --key go together: the server's ca.crt, and this client's "
                         "private key, which fedpace keys made")  # fmt: skip
    if key is not None and name is not None:
        raise InputError("with --key the server knows this client by its key; leave --name out")
    for path in (ca, key):
        if path is not None and not path.is_file():
            raise InputError(f"there is no file {path}; correct the path")
    share = None
    if partition is not None:
        found = re.fullmatch(r"(\d+)/(\d+)", partition)
        if not found or int(found[1]) >= int(found[2]):
            raise InputError(f"--partition {partition!r} is not I/N with I of 0 to N - 1")
        share = int(found[1]), int(found[2])
        # In the order of their numbers, so that positions are those of the virtual clock.
        name = name or f"client-{share[0]:0{len(found[2])}d}"
    name = name or (platform.node() if key is None else key.stem)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise InputError(
            f"--name {name!r} cannot name a client; use letters, digits, '.', '_' and '-'"
        )
    from fedpace.deploy.client import Admission, join
    from fedpace.deploy.client_view import ClientView
    from fedpace.deploy.client_work import Own
    from fedpace.deploy.uplink_pacing import paced, unpaced

    admission = None if ca is None or key is None else Admission(ca, key)
    with ClientView(console, name, server) as view:
        join(server, Own(name, data, share, model), view.say, show=view.show, log=log,
             wait_seconds=wait, admission=admission,
             controller=paced if pace else unpaced)  # fmt: skip


def _protection(host: str, certificates: Path | None, keys: Path | None) -> Protection | None:
    if certificates is None and keys is None:
        if host not in LOOPBACK:
            raise InputError(
                f"--host {host} is open to other machines, which takes --certificates and --keys; "
                "make them with fedpace certificates and fedpace keys add (docs/deployment.md)"
            )
        return None
    if certificates is None or keys is None:
        raise InputError("--certificates and --keys go together; make what is missing with "
                         "fedpace certificates or fedpace keys add")  # fmt: skip
    return Protection(read_certificates(certificates), keys)
