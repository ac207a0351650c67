"""Minimise a smooth function of many bounded variables: projected quasi-Newton.

L-BFGS (Nocedal and Wright, Numerical Optimization, algorithm 7.4) on the variables that are free
to move, with a sparse Hessian of the caller's to start from, and backtracking along the projected
path (Bertsekas 1982). Planning problems have nearly all of their curvature client by client, so ten
to twenty evaluations are enough at any size; `scipy.optimize`'s L-BFGS-B cannot be told and needs
several times as many.

The function may be a numerical one that is smooth only as long as some inner choice of it (here
quadrature nodes) stays as made at one point. So the caller gives it as a maker: z -> the function,
its choices made at z. The descent has it made anew whenever it has gone far.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedpace.core.profile import Floats

__all__ = ["Descent", "Local", "descend"]

_SUFFICIENT_DECREASE = 1e-4
"""Part of the predicted decrease that a step must reach."""
_LONGEST_STEP = 1.0
"""Largest change of a variable in one step; the variables are logarithms."""
_SHORTEST_FRACTION = 1e-5
"""The line search gives up at this fraction of a step."""
_FAR_DISTANCE = 0.5
"""How far a variable may go from where the function was made."""
_NEAR_DISTANCE = 0.02
"""The same for the point that is returned."""
_CURVATURE_DECAY = 0.5
"""Factor by which curvature that was once missed is remembered at each trial."""
_WINDOW_ITERATIONS = 5
"""So many iterations together must bring 20 times the tolerance."""
_VALUE_RESOLUTION = 1e-5
"""Decrease that counts as a gain where the function was made anew."""
_VAIN_REMAKINGS = 3
"""So often the function may be made anew without a gain of `_VALUE_RESOLUTION`: then the
differences between the ways it is made are all that is left."""


class Local(NamedTuple):
    """A function of M variables near one point."""

    value: float
    gradient: Floats
    curvature: Floats
    """About the second derivatives, shape (M,), above 0."""
    coupling: Floats | None = None
    """About the second derivative in z_i and z_(i + M/2), shape (M/2,); None: 0. Less than the
    root of the product of both curvatures."""


@dataclass(frozen=True, slots=True, eq=False)
class Descent:
    """Where a descent ended."""

    z: Floats
    local: Local
    evaluations: int
    iterations: int
    residual: float
    """First-order decrease to be had by moving every free variable by 1; 0 at a KKT point."""
    verdict: str
    """"converged"; "stalled" (no descent along the step: a kink, or rounding); "iteration cap"."""


def descend(
    make: Callable[[Floats], Callable[[Floats], Local]],
    start: Floats,
    lower: Floats,
    upper: Floats,
    *,
    tolerance: float = 1e-7,
    max_iterations: int = 200,
    memory: int = 10,
) -> Descent:
    """Minimise a function over the box lower <= z <= upper.

    Args:
        make: gives the function for use near a point.
        start: first z, shape (M,); moved into the box.
        lower: shape (M,).
        upper: shape (M,).
        tolerance: ends when the quadratic model predicts less decrease than this, or when five
            iterations have together brought less than 20 times as much.
        max_iterations: ends there at the latest.
        memory: pairs of steps and gradient changes kept.

    Returns:
        The last point.

    Example:
        >>> def parabola(z):
        ...     return Local(float(np.sum((z - 3) ** 2)), 2 * (z - 3), np.full(2, 2.0))
        >>> end = descend(lambda near: parabola, np.zeros(2), np.zeros(2), np.array([2.0, 5.0]))
        >>> end.z.tolist()
        [2.0, 3.0]
    """
    z = np.clip(start, lower, upper)
    function = make(z)
    here, evaluations, iterations = function(z), 1, 0
    made_at, best, in_vain = z, (z, here), 0
    pairs: deque[tuple[Floats, Floats]] = deque(maxlen=memory)
    values: deque[float] = deque(maxlen=_WINDOW_ITERATIONS)
    extra = np.zeros(len(z))
    while True:
        here = _stiffened(here, extra)
        step = _step(z, here, pairs, lower, upper)
        values.append(here.value)
        slow = len(values) == _WINDOW_ITERATIONS and values[0] - values[-1] < 20 * tolerance
        converged = here.gradient @ step <= 2 * tolerance or slow
        verdict = "converged" if converged else "iteration cap"
        moved = float(np.max(np.abs(z - made_at), initial=0.0))
        if iterations == max_iterations or (converged and moved <= _NEAR_DISTANCE):
            break
        if moved > (_NEAR_DISTANCE if converged else _FAR_DISTANCE):
            made_at, function = z, make(z)
            here, evaluations = function(z), evaluations + 1
            values.clear()
            in_vain = 0 if here.value < best[1].value - _VALUE_RESOLUTION else in_vain + 1
            best = min(best, (z, here), key=lambda point: point[1].value)
            if in_vain == _VAIN_REMAKINGS:
                verdict = "converged"
                break
            continue
        fraction, slope = 1.0, here.gradient @ step
        while fraction >= _SHORTEST_FRACTION:
            trial = z - fraction * step
            there, evaluations = function(trial), evaluations + 1
            rise = there.value - here.value
            extra = np.maximum(_CURVATURE_DECAY * extra, _missed(here, there, fraction * step))
            if rise <= -_SUFFICIENT_DECREASE * fraction * slope:
                break
            # The least point of the parabola through both values and the slope.
            least = fraction * slope / (2 * (rise + fraction * slope))
            fraction *= float(np.clip(least, 0.1, 0.5))
            here = _stiffened(here, extra)
            step = _step(z, here, pairs, lower, upper)
            slope = here.gradient @ step
        else:
            if pairs:  # a misled memory, most often: once more without it
                pairs.clear()
                continue
            verdict = "stalled"
            break
        pairs.append((trial - z, there.gradient - here.gradient))
        z, here, iterations = trial, there, iterations + 1
    if best[1].value < here.value:
        z, here = best
    residual = float(np.sum(np.abs(here.gradient), where=_free(z, here, lower, upper)))
    return Descent(z, here, evaluations, iterations, residual, verdict)


def _stiffened(here: Local, extra: Floats) -> Local:
    """With more curvature where that of the caller was seen to be too little."""
    return here._replace(curvature=np.maximum(here.curvature, extra))


def _missed(here: Local, there: Local, step: Floats) -> Floats:
    """The curvature that explains how each gradient changed along -step, at most 20 times ours."""
    moved = np.abs(step) > 1e-3 * np.max(np.abs(step), initial=0.0)
    change = here.gradient - there.gradient
    if here.coupling is not None:
        s_x, s_y = np.split(step, 2)
        change = change - np.concatenate([here.coupling * s_y, here.coupling * s_x])
    seen = np.where(moved, change / np.where(moved, step, 1.0), 0.0)
    return np.clip(seen, 0.0, 20 * here.curvature)


def _step(
    z: Floats,
    here: Local,
    pairs: deque[tuple[Floats, Floats]],
    lower: Floats,
    upper: Floats,
) -> Floats:
    """Z minus the next point of the box, if the whole step is taken."""
    free = _free(z, here, lower, upper)
    step = z - _moved(z, here, _quasi_newton(here, pairs, free), lower, upper)
    if here.gradient @ step > 0:
        return step
    longest = np.clip(here.gradient / here.curvature, -_LONGEST_STEP, _LONGEST_STEP)
    return z - np.clip(z - longest, lower, upper)


def _free(z: Floats, here: Local, lower: Floats, upper: Floats) -> NDArray[np.bool_]:
    """Which variables no limit keeps from following the gradient."""
    return ~(((z <= lower) & (here.gradient >= 0)) | ((z >= upper) & (here.gradient <= 0)))


def _moved(z: Floats, here: Local, step: Floats, lower: Floats, upper: Floats) -> Floats:
    """The point z - step, no farther than the longest step, brought into the box."""
    if here.coupling is None:
        return np.clip(z - np.clip(step, -_LONGEST_STEP, _LONGEST_STEP), lower, upper)
    size = np.maximum(*np.split(np.abs(step), 2))
    target = z - step * np.tile(_LONGEST_STEP / np.maximum(size, _LONGEST_STEP), 2)
    inside = np.clip(target, lower, upper)
    # Where a limit stops one of two coupled variables, the other does what is best then.
    over_x, over_y = np.split(inside - target, 2)
    xx, yy = np.split(here.curvature, 2)
    follow = np.concatenate([over_y * here.coupling / xx, over_x * here.coupling / yy])
    return np.asarray(np.clip(inside - follow, lower, upper))


def _solve(here: Local, vector: Floats, free: NDArray[np.bool_]) -> Floats:
    """Divide by the caller's Hessian on the free variables; the vector is 0 on the others."""
    if here.coupling is None:
        return np.asarray(vector / here.curvature)
    (v_x, v_y), (xx, yy) = np.split(vector, 2), np.split(here.curvature, 2)
    xy = np.where(np.logical_and(*np.split(free, 2)), here.coupling, 0.0)
    determinant = xx * yy - xy * xy
    curved = determinant > 0  # without noise a client has no curvature: down its slope
    divisor = np.where(curved, determinant, 1.0)
    steps = (yy * v_x - xy * v_y) / divisor, (xx * v_y - xy * v_x) / divisor
    return np.concatenate([np.where(curved, s, v) for s, v in zip(steps, (v_x, v_y), strict=True)])


def _quasi_newton(
    here: Local, pairs: deque[tuple[Floats, Floats]], free: NDArray[np.bool_]
) -> Floats:
    """Two-loop recursion on the free variables."""
    vector = np.where(free, here.gradient, 0.0)
    used = []
    for s, y in reversed(pairs):
        curvature = float(np.sum(s * y, where=free))
        if curvature <= 1e-10 * float(np.sqrt((s @ s) * (y @ y))):
            continue
        weight = float(s @ vector) / curvature
        vector -= weight * np.where(free, y, 0.0)
        used.append((s, y, weight, curvature))
    step = _solve(here, vector, free)
    for s, y, weight, curvature in reversed(used):
        step += (weight - float(y @ step) / curvature) * np.where(free, s, 0.0)
    return step
