"""Participants of a round trained in several processes, one thread each.

A round is divided into the same parts however many processes there are, and each part is computed
on one thread; so the result is the same to the bit. Every process loads the model for itself.
"""

import signal
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from functools import cache
from multiprocessing import get_context

import torch

from fedpace.core.adapter import Role
from fedpace.core.child import end_with_parent
from fedpace.core.errors import InputError, RunError
from fedpace.core.messages import ClientTask, ClientUpdate
from fedpace.core.sketch import Sketch
from fedpace.experiment.build import Work, build_model, local_training
from fedpace.experiment.config import Experiment
from fedpace.federation.engine import Train
from fedpace.lora import AdaptedModel
from fedpace.lora.local_training import ClientExamples
from fedpace.lora.trainer import Trainer

_loaded: tuple[Experiment, AdaptedModel, ClientExamples]
"""In a process of the pool: what it trains with."""


def with_workers(experiment: Experiment, work: Work, count: int) -> Work:
    """Let other processes train the clients of that work.

    They are started when first needed and end with this process, however it ends. A script that
    asks for workers needs the usual `if __name__ == "__main__":`, as the processes import it.

    Args:
        experiment: what `build_work` made the work of.
        work: with clients that are in this process.
        count: processes, at least 1. Each takes the memory of a model and its training.

    Raises:
        InputError: the count is below 1.
    """
    if count < 1:
        raise InputError(f"--workers is {count}; give at least 1 process")
    pool = ProcessPoolExecutor(
        count,
        get_context("spawn"),
        _load,
        (experiment, work.facts["label_names"], work.clients),
    )

    def make_train(sketch: Sketch, trained: tuple[Role, ...]) -> Train:
        here = work.make_train(sketch, trained)

        def train(tasks: Sequence[ClientTask]) -> list[ClientUpdate]:
            parts = [
                pool.submit(_train_part, sketch, trained, here.together, here.max_tokens, part)
                for part in here.parts(tasks)
            ]
            try:
                return [update for part in parts for update in part.result()]
            except BrokenProcessPool:
                raise RunError(
                    f"a worker process was ended, perhaps for lack of memory: {count} of them load "
                    "the model each; go on with fewer --workers and --resume"
                ) from None

        return train

    return replace(work, make_train=make_train)


def _load(
    experiment: Experiment, label_names: Sequence[str] | None, clients: ClientExamples
) -> None:
    """Begin a process of the pool."""
    global _loaded
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's to answer
    end_with_parent()
    torch.set_num_threads(1)
    _loaded = experiment, build_model(experiment, label_names), clients


@cache
def _trainer(sketch: Sketch, trained: tuple[Role, ...], together: bool, max_tokens: int) -> Trainer:
    experiment, adapted, clients = _loaded
    settings = local_training(experiment, sketch, trained)
    return Trainer(adapted, clients, settings, together, max_tokens)


def _train_part(
    sketch: Sketch,
    trained: tuple[Role, ...],
    together: bool,
    max_tokens: int,
    tasks: Sequence[ClientTask],
) -> list[ClientUpdate]:
    return _trainer(sketch, trained, together, max_tokens).train_part(tasks)
