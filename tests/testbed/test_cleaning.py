"""What a testbed that is killed leaves, and that it can be removed."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from rich.console import Console

from fedpace.testbed import commands
from fedpace.testbed.spaces import leftovers, remove
from testbed.shaped import needs_kernel, wait_until

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


@pytest.mark.slow
@pytest.mark.parametrize("moment", [1, 2, 4, 5, "up"])
def test_a_testbed_killed_at_any_moment_leaves_nothing_that_clean_does_not_remove(
    moment, tmp_path, monkeypatch, capsys
):
    """It is killed when so many of its five namespaces are there, or when all of it is."""
    script, said = tmp_path / "made.py", tmp_path / "said"
    script.write_text(_TESTBED)
    machine = outside()
    with said.open("w") as output:
        running = subprocess.Popen([sys.executable, script], stdout=output)
    own = f"fedpace-{running.pid}-"

    def there():
        made = [name for name in spaces() if name.startswith(own)]
        return said.read_text() == "up\n" if moment == "up" else len(made) >= moment

    wait_until(there, f"moment {moment}", 60)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    mine = [run for run in leftovers() if run.startswith(own)]
    assert len(mine) == 1
    monkeypatch.setattr(commands, "leftovers", lambda: mine)  # other tests' are theirs
    commands.clean(Console())
    assert f"removed {own}" in capsys.readouterr().out
    assert not [name for name in spaces() if name.startswith(own)]
    assert not list(Path(tempfile.gettempdir()).glob(f"{own}*"))
    wait_until(lambda: not _lives(script), "the end of its processes", 20)
    assert outside() == machine


@pytest.mark.slow
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


def _lives(script):
    """Whether a process that names this script is still there."""
    found = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    return any(str(script) in line for line in found.splitlines())
