"""Will it fit: the peak memory of an experiment and the seconds of a round on this machine.

It is tried, not guessed: model and data are loaded and planned for as in a run, a few of the
participants are trained, and then a part of a round of the longest examples there are.
"""

import os
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fedpace.core.messages import ClientTask
from fedpace.experiment.build import build_work, check, set_up
from fedpace.experiment.config import Experiment
from fedpace.experiment.methods import make_plan
from fedpace.experiment.schedule import last_step
from fedpace.lora.memory import token_bytes
from fedpace.lora.tasks import concatenate
from fedpace.lora.trainer import MOST_TOGETHER, Trainer


@dataclass(frozen=True, slots=True)
class Fit:
    """What an experiment takes on this machine."""

    participants: float
    """In a step of the server, in the mean, by the plan of the first method: in a round, in a beat,
    or in the buffer of an asynchronous method."""
    steps: int
    """How often the server moves in the whole run, at most: rounds, or beats where they overlap."""
    together: bool
    """Whether they are trained stacked, else one after another."""
    peak_bytes: float
    """Most memory of the process."""
    free_bytes: float
    """Memory that this process could take when it was asked, what it had then included."""
    seconds_per_round: float | None
    """Training of a round or beat, by the wall clock; None where memory forbade to try."""
    processor_seconds_per_round: float | None
    """The same, of the processors."""

    @property
    def fits(self) -> bool:
        """Whether the memory is enough."""
        return self.peak_bytes <= self.free_bytes


def try_fit(experiment: Experiment) -> Fit:
    """Load what an experiment needs and train a little of it.

    Args:
        experiment: its first method is tried.

    Returns:
        What was measured, brought to a round of the plan; where a pass would not fit, the memory by
        the sizes of the model, and no seconds.

    Raises:
        InputError: as `check` and `build_work`.
    """
    check(experiment)
    free = _free_bytes()
    work, method = build_work(experiment), experiment.methods[0]
    setup = set_up(experiment, work, method)
    plan = make_plan(experiment, setup.network, method)
    joins = plan.updates_per_beat()
    if joins is None:
        joins = plan.participation_probability() * setup.network.clients.availability
    mean = float(joins.sum())
    many = mean + 2 * float(np.sqrt(np.sum(joins * (1 - joins))))
    if plan.staleness_seconds is not None and plan.beat_seconds is not None:
        many *= plan.staleness_seconds.mean / plan.beat_seconds
    if (buffer := setup.aggregation.buffer) is not None:  # those in it, and those who are busy
        mean, many = float(buffer), buffer + mean
    adapter = sum(value.nbytes for value in work.initial_adapter.values())
    # Updates wait for the last of their round or for their beat, and server memory keeps each
    # client's.
    held = max(0.0, many - MOST_TOGETHER) * adapter
    held += len(joins) * adapter if experiment.training.server_memory else 0.0
    train: Trainer = setup.train
    steps = last_step(experiment, plan)
    token = token_bytes(train.adapted, recomputed=train.training.gradient_checkpointing)
    guess = _peak_bytes() + held + _pass_tokens(train) * token
    if guess > free:
        return Fit(mean, steps, train.together, guess, free, None, None)
    often = np.argsort(-joins, kind="stable")[:MOST_TOGETHER]
    tasks = [
        ClientTask(int(n), 0, work.initial_adapter, int(plan.sketch_rank[n]), experiment.seed)
        for n in often
    ]
    train(tasks[:1])  # whatever is done once
    wall, processor = time.perf_counter(), time.process_time()
    train(tasks)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    _train_longest(train, tasks)
    each = mean / len(tasks)
    peak = _peak_bytes() + held
    return Fit(mean, steps, train.together, peak, free, each * wall, each * processor)


def _pass_tokens(train: Trainer) -> int:
    longest = max(int(each.lengths.max()) for each in train.clients if len(each))
    return max(longest, train.max_tokens if train.together else longest * train.training.batch_size)


def _train_longest(train: Trainer, tasks: Sequence[ClientTask]) -> None:
    """Train a step of as many clients that have the longest examples of all."""
    everything, size = concatenate(train.clients), train.training.batch_size
    order = np.argsort(-everything.lengths, kind="stable")
    clients = [everything.take(order[size * i : size * (i + 1)]) for i in range(len(tasks))]
    worst = replace(train, clients=clients, training=replace(train.training, local_steps=1))
    for part in worst.parts([replace(t, client=i) for i, t in enumerate(tasks) if len(clients[i])]):
        worst.train_part(part)
        if not train.together:
            return


def _peak_bytes() -> float:
    """Most memory that this process has taken so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return float(unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def _free_bytes() -> float:
    """Memory that this process could have: what is available, and what it has."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        available = 1024 * next(int(x.split()[1]) for x in lines if x.startswith("MemAvailable"))
    except (OSError, StopIteration):  # not Linux: all there is
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return available + _peak_bytes()
