"""Whether a resumed run finds the population that it began with."""

from pathlib import Path

import numpy as np

from fedpace.core.errors import InputError
from fedpace.core.profile import Clients
from fedpace.experiment.config import Experiment
from fedpace.run_folder.schema import CLIENTS
from fedpace.wireless.clients_file import read_clients


def check_population(folder: Path, experiment: Experiment, now: Clients) -> None:
    """Hold the clients that [network] and [data] give now against the run's own clients.csv.

    Raises:
        InputError: they differ; the message names the first difference.
    """
    path = folder / CLIENTS
    if difference := _difference(read_clients(path), now):
        source = experiment.network.clients or "[network]"
        raise InputError(
            f"{path} and {source} are not the same clients: {difference}; resume with the clients "
            "that the run was started with, or start a new run with --out"
        )


def _difference(then: Clients, now: Clients) -> str | None:
    if len(then) != len(now):
        return f"{len(then)} there, {len(now)} now"
    was, found = then.columns(), now.columns()
    for name in was:
        if name not in found:
            return f"{name} is given there and not now"
    for name, new in found.items():
        if name not in was:
            return f"{name} is given now and not there"
        old = was[name]
        same = old == new if name == "client_id" else np.isclose(old, new, rtol=1e-9, atol=0)
        if not np.all(same):
            n = int(np.argmin(same))
            return f"{name} of client {then.client_id[n]!s} is {old[n]} there, {new[n]} now"
    return None
