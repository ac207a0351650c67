"""`fedpace` commands as processes of their own, forked from one that has imported everything.

An import of torch, transformers, peft and flwr takes seconds of processor time, and the tests start
many commands. A few start as a person starts them: `deploy.test_guide.test_on_one_laptop`, and what
`test_cli.fedpace` starts.
"""

import faulthandler
import importlib
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

STACKS = signal.SIGUSR2
"""Has a command write where each of its threads is to its output."""

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(
    ["fedpace.commands", "fedpace.lora", "fedpace.deploy.server", "fedpace.deploy.client"]
)


class Command:
    """A running `fedpace WORDS`, with the methods of `subprocess.Popen` that tests use."""

    def __init__(self, words, folder, output, errors=None, first=None):
        """What it says is added to the file `output`, and to `errors` where that is another.
        `first` is called in the process, before the command."""
        self.words = [str(word) for word in words]
        files = str(Path(output).resolve()), str(Path(errors or output).resolve())
        arguments = self.words, str(folder), files, dict(os.environ), first
        self._process = _forks.Process(target=_run, args=arguments, daemon=True)
        self._process.start()
        self.pid = self._process.pid

    def poll(self):
        return self._process.exitcode

    def wait(self, seconds=None):
        self._process.join(seconds)
        if self.poll() is None:
            raise subprocess.TimeoutExpired(self.words, seconds)
        return self.poll()

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        self._process.kill()


def fedpace(*words, cwd, scratch):
    """Run a command to its end; its output passes through files in the folder `scratch`."""
    output, errors = scratch / "stdout", scratch / "stderr"
    for path in (output, errors):
        path.write_text("")
    status = Command(words, cwd, output, errors).wait(300)
    return subprocess.CompletedProcess(words, status, output.read_text(), errors.read_text())


def _run(words, folder, files, environment, first):
    os.chdir(folder)
    os.environ.update(environment)
    write = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    for descriptor, path in enumerate((os.devnull, *files)):
        opened = os.open(path, write if descriptor else os.O_RDONLY, 0o644)
        os.dup2(opened, descriptor)
        os.close(opened)
    faulthandler.register(STACKS, file=2)
    # As on a terminal, also where the tests themselves run in the background.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if first is not None:
        first()
    sys.argv = ["fedpace", *words]
    importlib.import_module("fedpace.cli").main()
