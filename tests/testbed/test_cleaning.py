"""What a testbed that is killed leaves, and that it can be removed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from fedpace.testbed.spaces import leftovers, remove
from testbed.shaped import needs_kernel

pytestmark = needs_kernel
_TESTBED = "from fedpace.testbed.uploads import uploaders\nimport time\n" + (
    "if __name__ == '__main__':\n    with uploaders(3): print('up', flush=True); time.sleep(60)\n"
)


def spaces():
    folder = Path("/run/netns")
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def outside():
    """The machine's own links, addresses and shaping."""
    commands = (("ip", "-o", "link"), ("ip", "-o", "addr"), ("ip", "route"), ("tc", "qdisc"))
    return [subprocess.run(c, capture_output=True, text=True).stdout for c in commands]


def test_a_testbed_killed_at_any_moment_leaves_nothing_that_clean_does_not_remove(tmp_path):
    script = tmp_path / "made.py"
    script.write_text(_TESTBED)
    seen, machine = set(), outside()
    for seconds in (0.6, 0.8, 1.0, 1.5, 3.0):
        running = subprocess.Popen([sys.executable, script], stdout=subprocess.DEVNULL)
        time.sleep(seconds)
        os.kill(running.pid, signal.SIGKILL)
        running.wait()
        mine = [run for run in leftovers() if run.startswith(f"fedpace-{running.pid}-")]
        seen.update(name for name in spaces() if name.startswith(f"fedpace-{running.pid}-"))
        for run in mine:
            remove(run)
        assert not any(name.startswith(f"fedpace-{running.pid}-") for name in spaces())
        assert not list(Path("/tmp").glob(f"fedpace-{running.pid}-*"))
        assert not _lives(running.pid)
    assert seen, "no kill met a network; the test would show nothing"
    assert outside() == machine


def test_a_living_testbed_is_no_leftover(tmp_path):
    script = tmp_path / "made.py"
    script.write_text(_TESTBED)
    running = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    try:
        assert running.stdout.readline() == "up\n"
        assert any(name.startswith(f"fedpace-{running.pid}-") for name in spaces())
        assert not any(run.startswith(f"fedpace-{running.pid}-") for run in leftovers())
    finally:
        running.terminate()
        running.wait(20)
        running.stdout.close()
        for run in leftovers():
            if run.startswith(f"fedpace-{running.pid}-"):
                remove(run)


def _lives(parent):
    """Whether a process of this script is still there."""
    found = subprocess.run(["ps", "-eo", "ppid,pid,args"], capture_output=True, text=True).stdout
    return any("made.py" in line and str(parent) in line for line in found.splitlines())
