"""Clients that get into trouble at an exact moment of a round."""

import os
from pathlib import Path


def trouble(moment, number, file):
    """Have this process send itself a signal, once: in the first round that FILE names or a later
    one, at a moment. "training": in the first local step; "trained": before the answer is made;
    "handing over": when the node has the answer, but was not told that this was all.
    """
    import torch

    from fedpace.deploy import runtime
    from fedpace.engines.flower import client as flower_client

    read_task, now = flower_client.read_task, []

    def read(content, layout):
        task, wire = read_task(content, layout)
        now[:] = [task.round_index]
        return task, wire

    def first(true):
        def instead(*arguments, **named):
            if now and Path(file).exists() and now[0] >= int(Path(file).read_text()):
                Path(file).unlink()
                os.kill(os.getpid(), number)
            return true(*arguments, **named)

        return instead

    flower_client.read_task = read
    where, name = {
        "training": (torch.Tensor, "backward"),
        "trained": (flower_client, "update_content"),
        "handing over": (runtime, "push_task_output"),
    }[moment]
    setattr(where, name, first(getattr(where, name)))


def other_version(package):
    """Have this process claim another version of a package than it has."""
    import importlib.metadata

    true = importlib.metadata.version
    importlib.metadata.version = lambda name: "0.0.1" if name == package else true(name)


def wrong_clock(seconds):
    """Have this process's clock be so many seconds ahead, as far as its calls are signed."""
    from datetime import timedelta

    from fedpace.deploy import knocking

    true = knocking.now
    knocking.now = lambda: true() + timedelta(seconds=seconds)


def full_disk(file, count):
    """Have this process find no room for a file once FILE has so many lines."""
    import resource
    import threading
    import time

    def fill():
        while not Path(file).exists() or Path(file).read_text().count("\n") < count:
            time.sleep(0.02)
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, resource.RLIM_INFINITY))

    threading.Thread(target=fill, daemon=True).start()


def slow(seconds):
    """Have this process take so many seconds for a local step."""
    import time

    import torch

    true = torch.Tensor.backward

    def backward(*arguments, **named):
        time.sleep(seconds)
        return true(*arguments, **named)

    torch.Tensor.backward = backward
