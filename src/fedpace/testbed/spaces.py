"""Network namespaces: made, entered, listed by whose they are, and removed.

All that a testbed makes lies in namespaces whose names begin with the run's own, in a folder of the
same name, and in processes that run in the former. So what a killed testbed left can be told from
everything else, and `clean` removes it.
"""

import ctypes
import os
import re
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedpace.core.errors import RunError
from fedpace.testbed.kernel import call

_NAME = re.compile(r"(fedpace-(\d+)-(\d+))(-.*)?")
_SETTINGS = {
    "net/ipv6/conf/all/disable_ipv6": "1",  # no router is looked for on links of 100 kbit/s
    "net/ipv4/tcp_congestion_control": "cubic",
}
"""Settings of every namespace. Cubic keeps a shaped queue filled; BBR, the default on some
machines, probes for a rate that is known here, and takes a while after every live change."""
_CLONE_NEWNET = 0x40000000


def run_name() -> str:
    """Return the name of this process's testbed; no other process on this machine has it."""
    return f"fedpace-{os.getpid()}-{_started(os.getpid())}"


@contextmanager
def scratch(run: str) -> Iterator[Path]:
    """Make the run's folder for what its processes write on the way; removed at the end."""
    folder = Path(tempfile.gettempdir()) / run
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def make_space(name: str) -> None:
    """Make a namespace with its loopback interface up."""
    call("ip", "netns", "add", name)
    for key, value in _SETTINGS.items():
        write = f"if [ -e /proc/sys/{key} ]; then echo '{value}' > /proc/sys/{key}; fi"
        call("ip", "netns", "exec", name, "sh", "-c", write, accept_failure=True)
    call("ip", "-n", name, "link", "set", "dev", "lo", "up")


def enter(name: str) -> None:
    """Move this process, which must have one thread, into a namespace.

    Raises:
        RunError: there is none of that name, or this process may not.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/run/netns", name).open("rb") as space:
        if libc.setns(space.fileno(), _CLONE_NEWNET):
            raise RunError(f"cannot enter namespace {name}: {os.strerror(ctypes.get_errno())}")


def remove(run: str) -> list[str]:
    """End what runs in a testbed's namespaces and remove these, and its folder.

    Returns:
        What was removed: namespaces, and the folder.
    """
    spaces = [name for name in _spaces() if name.startswith(f"{run}-")]
    for name in spaces:
        _end_all_in(name)
        call("ip", "netns", "delete", name, accept_failure=True)
    folder = Path(tempfile.gettempdir()) / run
    if folder.is_dir():
        shutil.rmtree(folder, ignore_errors=True)
        spaces.append(str(folder))
    return spaces


def leftovers() -> list[str]:
    """Return the names of testbeds whose process has ended, and that left something."""
    folders = (path.name for path in Path(tempfile.gettempdir()).glob("fedpace-*"))
    found = (m for name in [*_spaces(), *folders] if (m := _NAME.fullmatch(name)))
    return sorted({m[1] for m in found if _started(int(m[2])) != int(m[3])})


def _spaces() -> list[str]:
    folder = Path("/run/netns")
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def _end_all_in(name: str, seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        inside = call("ip", "netns", "pids", name, accept_failure=True).split()
        if not inside:
            return
        for process in inside:
            try:
                os.kill(int(process), signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.05)


def _started(process: int) -> int | None:
    """Return when a process began, in the kernel's ticks: a number is used again, a pair is not."""
    try:
        text = Path(f"/proc/{process}/stat").read_text("utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(text.rpartition(")")[2].split()[19])
