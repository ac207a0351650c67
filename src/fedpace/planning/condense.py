r"""A population of thousands in the place of one of a million, to plan for first.

Each group of `crowd.gather` becomes one client that stands for its c members: their mean times and
links, their data together. Members share the rank, and within a group, where prices are equal, the
best probabilities are q_i ~ sqrt(n_i) with n_i = a_i^2 Gamma_i / availability_i (water-filling). At
a mean probability Q they make the noise :math:`\sum_i n_i / q_i = c\,\overline{\sqrt n}^2 / Q`, so
that is what the one client is given.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from fedpace.core.profile import Clients, Floats
from fedpace.planning.crowd import Crowd, gather
from fedpace.planning.objective import Decision, Problem, probability_limit

__all__ = ["condense", "expand"]

_GROUPS = 2000


def condense(problem: Problem) -> tuple[Problem, Crowd]:
    """Return the problem of groups, one client for each, and the groups."""
    clients = problem.clients
    crowd = gather(clients, problem.system, _GROUPS)
    size = np.diff(np.append(crowd.first, len(clients))).astype(np.float64)

    def mean(column: Floats) -> Floats:
        return np.asarray(np.add.reduceat(column[crowd.order], crowd.first) / size)

    columns: dict[str, Any] = {n: c for n, c in clients.columns().items() if n != "client_id"}
    share = clients.data_weight**2 * clients.update_second_moment
    noise = size * mean(np.sqrt(share / clients.availability)) ** 2
    for name, column in columns.items():
        if name in ("max_rank", "max_joules_per_round"):  # the tightest member's
            columns[name] = np.minimum.reduceat(column[crowd.order], crowd.first)
        else:
            columns[name] = mean(column)
    columns["data_weight"] *= size
    columns["update_second_moment"] = noise * columns["availability"] / columns["data_weight"] ** 2
    groups = Clients.from_columns(**columns)
    ratio = float((noise * columns["availability"]).sum() / share.sum())
    system = replace(problem.system, noise_ratio=problem.system.noise_ratio * ratio)
    every = np.arange(len(groups))
    condensed = Crowd(groups, system, every, every, size)
    return replace(problem, clients=groups, system=system, crowd=condensed, made={}), crowd


def expand(problem: Problem, crowd: Crowd, decision: Decision) -> tuple[Floats, Floats]:
    """Return q and k of every client from a decision for the groups."""
    clients = problem.clients
    size = np.diff(np.append(crowd.first, len(clients)))
    share = clients.data_weight**2 * clients.update_second_moment / clients.availability
    root = np.sqrt(share)[crowd.order]
    root /= np.repeat(np.add.reduceat(root, crowd.first) / size, size)
    q, k = np.empty(len(clients)), np.empty(len(clients))
    q[crowd.order] = root * np.repeat(decision.sampling_probability, size)
    k[crowd.order] = np.repeat(decision.sketch_rank.astype(np.float64), size)
    return np.clip(q, problem.q_min, probability_limit(problem, k)), k
