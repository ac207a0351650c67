"""Flower's own server and node, as processes that end with the one that started them.

``python -m fedpace.deploy.flower_process superlink|supernode OPTIONS`` runs Flower's program of
that name with Flower's own options, and two differences: it ends when its standard input does,
that is with its parent, however that dies; and Flower is patched (see `flower_patches`).
"""

import importlib
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

from fedpace.core.errors import writing
from fedpace.deploy.flower_patches import (
    NEWS_VARIABLE,
    allow_slow_uploads,
    set_timeout,
    shorten_node,
    tell_news,
    time_uploads,
)

PROGRAMS = {
    "superlink": ("flwr.superlink.cli.flower_superlink", "flower_superlink"),
    "supernode": ("flwr.supernode.cli.flower_supernode", "flower_supernode"),
}
_QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
}


def start(
    program: str,
    options: Sequence[object],
    home: Path,
    log: Path,
    environment: Mapping[str, str] | None = None,
    news: int | None = None,
) -> subprocess.Popen[bytes]:
    """Start one of Flower's programs.

    Args:
        program: "superlink" or "supernode".
        options: its own.
        home: folder for what it writes.
        log: file that its output is added to.
        environment: what is added to this process's own.
        news: file descriptor that a node is to write a byte to when there is work.
    """
    home.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "fedpace.deploy.flower_process", program]
    told = {} if news is None else {NEWS_VARIABLE: str(news)}
    with writing("--log", log, "give a file in a folder that exists"):
        opened = log.open("ab")
    with opened as output:
        return subprocess.Popen(
            [*command, *map(str, options)],
            stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT,
            env={**os.environ, **_QUIET, "FLWR_HOME": str(home), **(environment or {}), **told},
            pass_fds=() if news is None else (news,),
            start_new_session=True,  # an interrupt from the terminal is the parent's to handle
        )  # fmt: skip


def stop(process: subprocess.Popen[bytes], seconds: float = 10.0) -> None:
    """End a process that `start` started, by force where it does not end by itself."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def main() -> None:
    """Run Flower's program in this process."""
    program = sys.argv[1]
    sys.argv = [f"flower-{program}", *sys.argv[2:]]
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if program == "supernode":
        shorten_node()
        tell_news()
        set_timeout()
    else:
        time_uploads()
        allow_slow_uploads()
    module, function = PROGRAMS[program]
    status = 1
    try:
        getattr(importlib.import_module(module), function)()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        # A node that gives its server up leaves by an exception, and the thread of its local
        # interface would live on: whoever asks it for tasks would be told for ever that there are
        # none.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _end_with_parent() -> None:
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(5)
    os._exit(1)  # it was about to hang


if __name__ == "__main__":
    main()
