"""Deal training examples to clients, so that every example belongs to exactly one client.

Three ways: "iid" (sizes differ, mixtures do not), "dirichlet" (label mixtures differ, as proposed
by Hsu, Qi and Brown, arXiv 1909.06335) and "group" (clients are made of natural groups: speakers,
modules). Sizes do not depend on the way: client n gets a share proportional to
exp(size_sigma z_n), z_n standard normal, as nearly as "group" allows.
"""

import numpy as np
from numpy.typing import NDArray

from fedpace.core.errors import InputError
from fedpace.core.examples import Examples
from fedpace.core.rng import rng_for

Indices = NDArray[np.int64]
Floats = NDArray[np.float64]

HOWS = ("dirichlet", "group", "iid")

MAX_SCALINGS = 300
"""Scalings of the label table; a remainder, which only a tiny alpha leaves, falls to rounding."""


def partition(
    examples: Examples,
    *,
    clients: int,
    how: str = "dirichlet",
    alpha: float = 0.5,
    size_sigma: float = 0.0,
    seed: int = 0,
) -> list[Indices]:
    r"""Deal M examples to N clients.

    ``"iid"``: every client gets a uniform draw of its size.

    ``"dirichlet"``: client n draws a label mixture :math:`p_n \sim \mathrm{Dir}(\alpha C \pi)`
    over the C classes, with :math:`\pi` their shares of the data (for equal classes the symmetric
    :math:`\mathrm{Dir}(\alpha)`). The numbers of examples by client and class are then those that
    use up every class, give every client its size, and are nearest to the mixtures in relative
    entropy (iterative proportional fitting). Drawing client by client instead leaves the last ones
    whatever labels remain. As alpha grows the mixtures tend to :math:`\pi`.

    ``"group"``: with at least as many groups as clients every group stays whole: in random order
    each goes to the client that is furthest below its share, once every client is sure of one.
    With fewer groups every client holds a part of one group; a group gets clients in proportion to
    its examples (D'Hondt's rule, at least one).

    Args:
        examples: M examples; "dirichlet" reads `label`, "group" reads `group`.
        clients: N, at most M.
        how: "dirichlet", "group" or "iid".
        alpha: concentration of the label mixtures, > 0; read by "dirichlet" only.
        size_sigma: standard deviation of the logarithm of the sizes, >= 0; 0 for equal sizes.
        seed: the run's seed; the draw is ``rng_for(seed, "partition")``.

    Returns:
        Per client the indices of its examples, at least one, in rising order.

    Raises:
        InputError: a value out of range, more clients than examples, or no column to go by.

    Example:
        >>> examples = Examples("corpus", text=("a", "b", "c", "d"))
        >>> parts = partition(examples, clients=2, how="iid", seed=1)
        >>> sorted(np.concatenate(parts).tolist()), [len(part) for part in parts]
        ([0, 1, 2, 3], [2, 2])
    """
    count = len(examples)
    if not 1 <= clients <= count:
        raise InputError(
            f"[data] clients = {clients}; it must be from 1 to the number of training examples, "
            f"{count}, so that every client has one"
        )
    if not (size_sigma >= 0 and np.isfinite(size_sigma)):
        raise InputError(f"[data] size_sigma = {size_sigma!r}; it must be 0 or more, and finite")
    rng = rng_for(seed, "partition")
    log_share = size_sigma * rng.standard_normal(clients)
    if how == "iid":
        parts = _deal(rng.permutation(count), log_share)
    elif how == "dirichlet":
        if examples.label is None:
            raise InputError(
                f"[data] partition = 'dirichlet' needs labels, {examples.kind!r} examples have "
                "none; choose 'iid', or 'group' where there is a column \"group\""
            )
        if not (alpha > 0 and np.isfinite(alpha)):
            raise InputError(f"[data] alpha = {alpha!r}; it must be above 0, and finite")
        parts = _by_label(examples.label, log_share, alpha, rng)
    elif how == "group":
        if examples.group is None:
            raise InputError(
                "[data] partition = 'group' needs a column \"group\", the examples have none; "
                "choose 'iid', or 'dirichlet' where there are labels"
            )
        parts = _by_group(np.asarray(examples.group), log_share, rng)
    else:
        raise InputError(f"[data] partition = {how!r} is unknown; known are {', '.join(HOWS)}")
    return [np.sort(part) for part in parts]


def _share(log_share: Floats) -> Floats:
    share: Floats = np.exp(log_share - log_share.max())  # at most 1, however wide the spread
    share /= share.sum()
    return share


def _sizes(count: int, log_share: Floats) -> Indices:
    """Split `count` examples in proportion to the shares, at least one each."""
    spare = (count - len(log_share)) * _share(log_share)
    sizes: Indices = 1 + np.floor(spare).astype(np.int64)
    by_remainder = np.argsort(np.floor(spare) - spare, kind="stable")
    sizes[by_remainder[: count - int(sizes.sum())]] += 1
    return sizes


def _deal(index: Indices, log_share: Floats) -> list[Indices]:
    return np.split(index, np.cumsum(_sizes(len(index), log_share))[:-1])


def _by_label(
    label: Indices, log_share: Floats, alpha: float, rng: np.random.Generator
) -> list[Indices]:
    _, class_of, class_size = np.unique(label, return_inverse=True, return_counts=True)
    size = _sizes(len(label), log_share)
    concentration = alpha * len(class_size) * class_size / len(label)
    table = _fit(_log_dirichlet(concentration, len(size), rng), size, class_size)
    shuffled = rng.permutation(len(label))
    pools = [shuffled[class_of[shuffled] == c] for c in range(len(class_size))]
    left, due = class_size.copy(), np.zeros(len(class_size))
    parts: list[Indices] = [np.empty(0, dtype=np.int64)] * len(size)
    for n in rng.permutation(len(size)):
        # Round the row to its size; `due` hands each class's rounding error to the next client.
        due += table[n]
        drawn = np.minimum(np.floor(table[n]).astype(np.int64), left)
        for _ in range(size[n] - int(drawn.sum())):
            drawn[np.argmax(np.where(drawn < left, due - drawn, -np.inf))] += 1
        parts[n] = np.concatenate(
            [p[r - d : r] for p, r, d in zip(pools, left, drawn, strict=True)]
        )
        due -= drawn
        left -= drawn
    return parts


def _log_dirichlet(concentration: Floats, count: int, rng: np.random.Generator) -> Floats:
    """Return the logarithms of `count` Dirichlet draws; small ones would underflow otherwise."""
    shape = (count, len(concentration))
    # Gamma(a) = Gamma(a + 1) U^(1/a), whose logarithm stays finite as a -> 0.
    boosted: Floats = np.log(rng.standard_gamma(concentration + 1, shape))
    log_gamma = boosted - rng.standard_exponential(shape) / concentration
    return log_gamma - np.logaddexp.reduce(log_gamma, axis=1, keepdims=True)


def _fit(log_mixture: Floats, size: Indices, class_size: Indices) -> Floats:
    """Scale rows and columns in turn until both sums fit, the columns' to half an example.

    The limit is, of all tables with these sums, the nearest to the mixtures in relative entropy.
    """
    log_size, log_class_size = np.log(size)[:, None], np.log(class_size)
    table = log_mixture + log_size
    for _ in range(MAX_SCALINGS):
        if np.all(np.abs(np.exp(table).sum(axis=0) - class_size) < 0.5):
            break
        table += log_class_size - np.logaddexp.reduce(table, axis=0)
        table += log_size - np.logaddexp.reduce(table, axis=1, keepdims=True)
    fitted: Floats = np.exp(table)
    return fitted


def _by_group(
    group: NDArray[np.str_], log_share: Floats, rng: np.random.Generator
) -> list[Indices]:
    _, group_of, size = np.unique(group, return_inverse=True, return_counts=True)
    if len(size) < len(log_share):
        return _split_groups(group_of, size, log_share, rng)
    owner = np.empty(len(size), dtype=np.int64)
    room = _share(log_share) * len(group)
    empty = np.ones(len(log_share), dtype=bool)
    order = rng.permutation(len(size))
    for place, g in enumerate(order):
        last_chance = empty.sum() == len(order) - place
        owner[g] = np.argmax(np.where(empty, room, -np.inf) if last_chance else room)
        room[owner[g]] -= size[g]
        empty[owner[g]] = False
    client_of = owner[group_of]
    return [np.flatnonzero(client_of == n) for n in range(len(log_share))]


def _split_groups(
    group_of: Indices, size: Indices, log_share: Floats, rng: np.random.Generator
) -> list[Indices]:
    seats = np.ones(len(size), dtype=np.int64)
    for _ in range(len(log_share) - len(size)):
        seats[np.argmax(size / (seats + 1))] += 1  # D'Hondt: never more seats than examples
    members = [rng.permutation(np.flatnonzero(group_of == g)) for g in range(len(size))]
    shares = np.split(log_share, np.cumsum(seats)[:-1])
    return [part for of, each in zip(members, shares, strict=True) for part in _deal(of, each)]
