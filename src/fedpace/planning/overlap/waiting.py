r"""How long a client waits for the band: the workload before it, as a distribution by phase.

Clients start at beats, so client n becomes ready at the phase ready_n mod D of a beat, every time.
The work that waits at the band therefore repeats from beat to beat: at the phases of the clients,
in order, it grows by their uploads with their chances, between them the band works it off,

.. math:: U \leftarrow \max(0, U - \text{gap}), \qquad
          U \leftarrow U + s_n \text{ with chance } g_n.

That is Lindley's recursion with a period. Its distribution is kept on a grid whose cell is the time
slot, so that the band works off one cell a slot without rounding, and is turned until it repeats.
A wait of M/G/1 would take arrivals as spread evenly: where devices are of two kinds, or beats long,
they come in batches.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedpace.core.profile import Floats

__all__ = ["Waiting", "waiting"]

_SLOTS_OF_BEAT = (128, 256, 512, 1024)
"""Time slots of a beat; more where the clients share few of them."""
_OCCUPIED_SLOTS = 64
"""So many slots shall hold clients, where there are as many clients."""
_ONE_BY_ONE_CLIENTS = 32
"""Up to so many clients each one's own uploads are left out of what it waits for."""
_ONE_BY_ONE_NUMBERS = 2e5
"""They are not where that takes more than so many numbers."""
_MOST_CELLS = 1600
"""Finer slots are taken up to so many cells."""
_GROUPS_OF_SLOT = 8
"""Groups of similar uploads in a slot, where clients are many."""
_SINGLE_CLIENTS = 2500
"""Up to so many clients each has its own place in the law of a slot's uploads."""
_MOST_BEATS = 60
"""Beats until the workload repeats, at most."""
_BEAT_TOLERANCE = 3e-4
"""How closely it repeats, as a share of a beat."""
_GRID_MEAN_WAITS = 10.0
"""Grid length in mean waits of M/G/1."""
_GRID_BEATS = 8
"""Grid length in beats, at most."""
_NEGLIGIBLE_CHANCE = 1e-9
"""The end of a law that has no chance above this is dropped."""


@dataclass(frozen=True, slots=True, eq=False)
class Waiting:
    """What a client that becomes ready finds before it."""

    survival: Floats
    """P(U > cell), by phase and cell, shape (P, K); where own work is left out P = N."""
    row: NDArray[np.int64]
    """Row of each client in `survival`, shape (N,)."""
    ahead: Floats
    """What the grid leaves out, shape (N,), s: the mean work of others of the slot who go first,
    less what is worked off of it; half a slot more, since uploads come within slots, not at their
    beginning."""
    waits: Floats
    """Chance to find anything at all, shape (N,)."""
    cell_seconds: float
    work: Floats
    """The work at a beat, by cell, shape (1, K) or (N, K): where the next law may begin."""

    def mean(self) -> Floats:
        """Return the mean wait, shape (N,), s."""
        work = self.survival.sum(axis=1)[self.row] * self.cell_seconds
        return np.asarray(np.maximum(work + self.ahead * self.waits, 0.0))

    def exceeds(self, seconds: Floats) -> Floats:
        """Return each client's chance to wait longer than that, shape (N,)."""
        place = (seconds - self.ahead) / self.cell_seconds
        low = np.floor(place).astype(np.int64)
        part = place - low
        cells = self.survival.shape[1]

        def at(cell: NDArray[np.int64]) -> Floats:
            inside = self.survival[self.row, np.minimum(np.maximum(cell, 0), cells - 1)]
            return np.where(cell < 0, self.waits, np.where(cell >= cells, 0.0, inside))

        return np.asarray((1 - part) * at(low) + part * at(low + 1))


def waiting(
    ready_seconds: Floats,
    work_seconds: Floats,
    chance: Floats,
    beat_seconds: float,
    members: Floats | None = None,
    start: Waiting | None = None,
) -> Waiting:
    """Return the stationary work before each client.

    Args:
        ready_seconds: from the beat until a client can send, shape (N,), s.
        work_seconds: what its upload takes of the whole band, shape (N,), s.
        chance: g_n, that a client starts at a beat, whatever it does then, shape (N,); the load
            sum g s must be below the beat.
        beat_seconds: D, s.
        members: how many clients each entry stands for, shape (N,); by default one.
        start: the work of a similar schedule, from which it settles sooner.

    Returns:
        The work before each.
    """
    count = len(chance)
    crowd = np.ones(count) if members is None else members
    phase = np.mod(ready_seconds, beat_seconds)
    load = crowd * chance * work_seconds
    used = float(load.sum()) / beat_seconds
    mean_wait = float(load @ work_seconds) / (2 * max(1 - used, 1e-3) * beat_seconds)
    longest = min(
        float(crowd @ work_seconds),
        used * beat_seconds + _GRID_MEAN_WAITS * mean_wait + float(work_seconds.max()),
        _GRID_BEATS * beat_seconds,
    )
    for slots in _SLOTS_OF_BEAT:
        cell = beat_seconds / slots
        cells = int(np.ceil(longest / cell)) + 2
        slot = np.minimum((phase / cell).astype(np.int64), slots - 1)
        enough = np.count_nonzero(np.bincount(slot)) >= min(_OCCUPIED_SLOTS, count // 2)
        if enough or 2 * cells > _MOST_CELLS:
            break
    one_by_one = (
        members is None and count <= _ONE_BY_ONE_CLIENTS and count**2 * cells <= _ONE_BY_ONE_NUMBERS
    )
    work = np.zeros((count if one_by_one else 1, cells))
    work[:, 0] = 1.0
    if start is not None and start.work.shape[0] == work.shape[0]:
        kept = min(cells, start.work.shape[1])
        work[:, :kept] = start.work[:, :kept]
        work[:, -1] += 1 - work.sum(axis=1)
    if one_by_one:
        return _one_by_one(work, phase, slot, work_seconds, chance, cell, slots)
    return _by_slot(work, phase, slot, work_seconds, chance, crowd, cell, slots)


def _jump(work: Floats, size: float, chance: float) -> Floats:
    """Add an upload of `size` cells, with a chance, to the work of every row."""
    whole = int(size)
    part = size - whole
    cells = work.shape[1]
    added = np.zeros(work.shape)
    for shift, share in ((whole, 1 - part), (whole + 1, part)):
        if share == 0:
            continue
        shift = min(shift, cells - 1)
        moved = share * work
        added[:, shift:] += moved[:, : cells - shift]
        added[:, -1] += share * np.add.reduce(work[:, cells - shift :], axis=1)
    added *= chance
    added += (1 - chance) * work
    return added


def _worked_off(work: Floats, slots: int) -> Floats:
    if slots == 0:
        return work
    slots = min(slots, work.shape[1] - 1)
    left = np.zeros(work.shape)
    left[:, : work.shape[1] - slots] = work[:, slots:]
    left[:, 0] += np.add.reduce(work[:, :slots], axis=1)
    return left


def _survival(work: Floats) -> Floats:
    return np.asarray(np.maximum(1 - np.cumsum(work, axis=1), 0.0))


def _one_by_one(
    work: Floats,
    phase: Floats,
    slot: NDArray[np.int64],
    upload: Floats,
    chance: Floats,
    cell: float,
    slots: int,
) -> Waiting:
    """Row n of the work never contains the uploads of client n."""
    count, cells = work.shape
    order = np.argsort(phase, kind="stable")
    seen = np.empty((count, cells))
    cell_number = np.arange(cells, dtype=np.float64)
    before = -1.0
    for _ in range(_MOST_BEATS):
        now = 0
        for n in order:
            work = _worked_off(work, int(slot[n]) - now)
            now = int(slot[n])
            seen[n] = work[n]
            own = work[n].copy()
            work = _jump(work, float(upload[n] / cell), float(chance[n]))
            work[n] = own
        work = _worked_off(work, slots - now)
        mean = float((work @ cell_number).mean()) / slots
        if abs(mean - before) < _BEAT_TOLERANCE:
            break
        before = mean
    survival = _survival(seen)
    ahead = (slot + 0.5) * cell - phase
    return Waiting(survival, np.arange(count), ahead, survival[:, 0], cell, work)


def _by_slot(
    work: Floats,
    phase: Floats,
    slot: NDArray[np.int64],
    upload: Floats,
    chance: Floats,
    members: Floats,
    cell: float,
    slots: int,
) -> Waiting:
    """All clients of a slot at once; who of them goes first is known on average."""
    cells = work.shape[1]
    used, row = np.unique(slot, return_inverse=True)
    steps = _slot_uploads(slot, upload / cell, chance, members, used, cells)
    seen = np.empty((len(used), cells))
    before = -1.0
    for _ in range(_MOST_BEATS):
        now = 0
        for i, at in enumerate(used):
            work = _worked_off(work, int(at) - now)
            now = int(at)
            seen[i] = work[0]
            sum_ = np.convolve(work[0], steps[i])
            work = sum_[None, :cells].copy()
            work[0, -1] += sum_[cells:].sum()
        work = _worked_off(work, slots - now)
        mean = float(work[0] @ np.arange(cells)) / slots
        if abs(mean - before) < _BEAT_TOLERANCE:
            break
        before = mean
    order = np.argsort(phase, kind="stable")
    survival = _survival(seen)
    ahead, others = (
        _of_the_slot(column, members * column, order, slot, used, row)
        for column in (chance * upload, chance)
    )
    waits = 1 - (1 - survival[row, 0]) * np.exp(-others)
    return Waiting(survival, row, ahead + (slot + 0.5) * cell - phase, waits, cell, work)


def _of_the_slot(
    own: Floats,
    total: Floats,
    order: NDArray[np.int64],
    slot: NDArray[np.int64],
    used: NDArray[np.int64],
    row: NDArray[np.int64],
) -> Floats:
    """Sum a column over those of each client's slot who are ready before it."""
    running = np.cumsum(total[order])
    until = np.concatenate([[0.0], running])[np.searchsorted(slot[order], used)]
    before = np.empty(len(own))
    before[order] = running - total[order] / 2 - own[order] / 2
    return np.asarray(np.maximum(before - until[row], 0.0))


def _slot_uploads(
    slot: NDArray[np.int64],
    size: Floats,
    chance: Floats,
    members: Floats,
    used: NDArray[np.int64],
    cells: int,
) -> list[Floats]:
    """The distribution of the work that comes in each slot, in cells, trimmed."""
    slot, size, chance, members = _gathered(slot, size, chance, members)
    length = 1 << int(np.ceil(np.log2(2 * max(size.max() + 2, 8))))
    load = np.bincount(slot, members * chance * size, minlength=used[-1] + 1)
    spread = np.bincount(slot, members * chance * size**2, minlength=used[-1] + 1)
    most = float((load + 8 * np.sqrt(spread)).max()) + size.max() + 8
    while length < most:
        length *= 2
    angle = np.exp(-2j * np.pi * np.arange(length // 2 + 1) / length)
    whole = np.floor(size)
    part = (size - whole)[:, None]
    steps = []
    turned = np.empty((len(used), len(angle)), dtype=np.complex128)
    for i, at in enumerate(used):
        mine = slot == at
        turn = angle ** whole[mine][:, None]
        upload = turn * (1 - part[mine] + part[mine] * angle)
        one = 1 + chance[mine][:, None] * (upload - 1)
        turned[i] = np.prod(one ** members[mine][:, None], axis=0)
    for law in np.fft.irfft(turned, n=length, axis=1):
        law = np.maximum(law, 0.0)
        end = len(law) - int(np.argmax(law[::-1] > _NEGLIGIBLE_CHANCE))
        steps.append(law[: min(end, cells)] / law[: min(end, cells)].sum())
    return steps


def _gathered(
    slot: NDArray[np.int64], size: Floats, chance: Floats, members: Floats
) -> tuple[NDArray[np.int64], Floats, Floats, Floats]:
    """Clients of a slot with similar uploads stand together: (slot, size, chance, members)."""
    if len(slot) <= _SINGLE_CLIENTS:
        return slot, size, chance, members
    edges = np.quantile(size, np.linspace(0, 1, _GROUPS_OF_SLOT + 1)[1:-1])
    key = slot * _GROUPS_OF_SLOT + np.searchsorted(edges, size)
    together = np.asarray(np.bincount(key, members), dtype=np.float64)
    kept = np.flatnonzero(together)
    total = np.bincount(key, members * chance)[kept]
    load = np.bincount(key, members * chance * size)[kept]
    return (
        kept // _GROUPS_OF_SLOT,
        load / np.maximum(total, 1e-300),
        total / together[kept],
        together[kept],
    )
