"""A server and its clients as real processes, on an experiment that trains in milliseconds."""

import signal
import subprocess
import time

from deploy.processes import free_port, wait_until
from tiny import EXPERIMENT, write_experiment
from warm import STACKS, Command


class Fleet:
    """Processes with their output in files; all are ended with the context."""

    def __init__(self, folder, *, clients=3, rounds=4, method="full", text=EXPERIMENT):
        self.folder, self.clients, self.port, self.running = folder, clients, free_port(), []
        text = text.replace("clients = 6", f"clients = {clients}")
        text = text.replace("rounds = 6", f"rounds = {rounds}").replace("replan_every = 3", "")
        text = text.replace('"adaptive", "uniform"', f'"{method}"')
        self.experiment = write_experiment(folder, text)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if any(error):
            self.tell()
        for process in self.running:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        for process in self.running:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def tell(self):
        """Print what every process said, where those that live are, and the rounds."""
        for process in self.running:
            process.send_signal(STACKS)
        time.sleep(1.0)
        for process in self.running:
            print(f"\n--- {' '.join(process.words)}: exit status {process.poll()}")
        for path in sorted([*self.folder.glob("*.out"), *self.folder.glob("*.log")]):
            print(f"\n--- {path.name}\n{path.read_text()[-4000:]}")
        for path in self.folder.glob("*/rounds.jsonl"):
            print(f"\n--- {path}\n{path.read_text()[-4000:]}")

    def run(self, name, *words, first=None):
        process = Command(words, self.folder, self.folder / f"{name}.out", first=first)
        self.running.append(process)
        return process

    def serve(self, *words, name="server", wait=120, first=None):
        return self.run(name, "serve", *words, "--port", self.port, "--log", "superlink.log",
                        "--wait", wait, first=first)  # fmt: skip

    def join(self, n, *words, first=None, port=None):
        return self.run(f"client-{n}", "join", f"127.0.0.1:{port or self.port}", "--partition",
                        f"{n}/{self.clients}", "--wait", 90, "--log", f"node-{n}.log",
                        *words, first=first)  # fmt: skip

    def said(self, name):
        path = self.folder / f"{name}.out"
        return path.read_text() if path.exists() else ""

    def wait_for(self, name, text, seconds=240.0):
        wait_until(lambda: text in self.said(name), f"{name} saying {text!r}", seconds)


def end(process, seconds=120):
    assert process.wait(seconds) == 0
