"""Whose examples are whose: one dealing for runs, for plans and for clients of a test."""

from fedpace.core.examples import Examples
from fedpace.experiment.config import Experiment
from fedpace.federation.partition import Indices, partition


def dealt(experiment: Experiment, train: Examples) -> list[Indices]:
    """Deal the training examples to the clients as [data] says.

    Args:
        experiment: its [data] and seed are read.
        train: all of them.

    Returns:
        The rows of each client.
    """
    data = experiment.data
    return partition(
        train, clients=data.clients, how=data.partition, alpha=data.alpha,
        size_sigma=data.size_sigma, seed=experiment.seed,
    )  # fmt: skip
