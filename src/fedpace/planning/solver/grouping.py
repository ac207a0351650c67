r"""A population of thousands in the place of one of a million, to plan for first.

Each group of `group_clients` becomes one client that stands for its c members: their mean times and
links, their data together. Members share the rank, and within a group, where prices are equal, the
best probabilities are q_i ~ sqrt(n_i) with n_i = a_i^2 Gamma_i / availability_i (water-filling). At
a mean probability Q they make the noise :math:`\sum_i n_i / q_i = c\,\overline{\sqrt n}^2 / Q`, so
that is what the one client is given.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from fedpace.core.profile import Clients, Floats
from fedpace.planning.round_time.grouped import Groups, group_clients
from fedpace.planning.solver.objective import Problem, law_groups, probability_limit

__all__ = ["expand", "group_mean", "grouped_problem"]

_MOST_GROUPS = 2000
"""Groups in the place of a population, at most."""
_LIMIT_PASSES = 12
"""How often members at their limit are set apart, at most."""


def grouped_problem(problem: Problem) -> tuple[Problem, Groups]:
    """Return the problem of groups, one client for each, and the groups; made once a problem."""
    if "groups" not in problem.made:
        problem.made["groups"] = _grouped_problem(problem)
    made: tuple[Problem, Groups] = problem.made["groups"]
    return made


def group_mean(groups: Groups, column: Floats) -> Floats:
    """Mean of a column over each group, shape (M,)."""
    size = np.diff(np.append(groups.first, len(column)))
    return np.asarray(np.add.reduceat(column[groups.order], groups.first) / size)


def _grouped_problem(problem: Problem) -> tuple[Problem, Groups]:
    clients = problem.clients
    share = clients.data_weight**2 * clients.update_second_moment
    groups = group_clients(
        clients, problem.system, _MOST_GROUPS, worth=np.sqrt(share / clients.availability)
    )
    size = np.diff(np.append(groups.first, len(clients))).astype(np.float64)
    columns: dict[str, Any] = {n: c for n, c in clients.columns().items() if n != "client_id"}
    noise = size * group_mean(groups, np.sqrt(share / clients.availability)) ** 2
    for name, column in columns.items():
        if name in ("max_rank", "max_joules_per_round"):  # the tightest member's
            columns[name] = np.minimum.reduceat(column[groups.order], groups.first)
        else:
            columns[name] = group_mean(groups, column)
    columns["data_weight"] *= size
    columns["update_second_moment"] = noise * columns["availability"] / columns["data_weight"] ** 2
    one_each = Clients.from_columns(**columns)
    ratio = float((noise * columns["availability"]).sum() / share.sum())
    system = replace(problem.system, noise_ratio=problem.system.noise_ratio * ratio)
    every = np.arange(len(one_each))
    stand_ins = Groups(one_each, system, every, every, size)
    if (merged := law_groups(one_each, system)) is not None:
        stand_ins = replace(merged, count=size)
    return replace(
        problem, clients=one_each, system=system, groups=stand_ins, q_max=None, made={}
    ), groups


def expand(
    problem: Problem, groups: Groups, sampling_probability: Floats, sketch_rank: Floats
) -> tuple[Floats, Floats]:
    """Return q and k of every client from those of the groups, shape (M,) each."""
    clients = problem.clients
    size = np.diff(np.append(groups.first, len(clients)))
    share = clients.data_weight**2 * clients.update_second_moment / clients.availability
    k = np.repeat(sketch_rank, size)
    root = np.sqrt(share)[groups.order]
    most = np.empty(len(clients))
    most[groups.order] = k
    most = probability_limit(problem, most)[groups.order]
    wanted = sampling_probability * size
    # Where some members are at their limit the others take more, so that the mean stays.
    q, given = np.zeros(len(clients)), np.zeros(len(clients), dtype=bool)
    for _ in range(_LIMIT_PASSES):
        left = wanted - np.add.reduceat(np.where(given, q, 0.0), groups.first)
        open_root = np.add.reduceat(np.where(given, 0.0, root), groups.first)
        scale = np.repeat(left / np.maximum(open_root, 1e-300), size)
        q = np.where(given, q, np.minimum(scale * root, most))
        reached = given | (q >= most)
        if np.array_equal(reached, given):
            break
        given = reached
    members_q, members_k = np.empty(len(clients)), np.empty(len(clients))
    members_q[groups.order], members_k[groups.order] = np.clip(q, problem.q_min, most), k
    return members_q, members_k
