"""Minimise a smooth function of many bounded variables: projected quasi-Newton.

L-BFGS (Nocedal and Wright, Numerical Optimization, algorithm 7.4) on the variables that are free
to move, with a diagonal of the caller's as the initial Hessian, and backtracking along the
projected path (Bertsekas 1982). Planning problems have a diagonal that carries nearly all of the
curvature, so ten to twenty evaluations are enough at any size; `scipy.optimize`'s L-BFGS-B cannot
be given one and needs several times as many.

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

_SUFFICIENT = 1e-4
"""Part of the predicted decrease that a step must reach."""
_LONGEST_STEP = 1.0
"""Largest change of a variable in one step; the variables are logarithms."""
_SHORTEST = 1e-5
"""The line search gives up at this fraction of a step."""
_FAR = 0.5
"""How far a variable may go from where the function was made."""
_NEAR = 0.02
"""The same for the point that is returned."""
_RESOLUTION = 1e-5
_PATIENCE = 3
"""So often the function may be made anew without a gain of `_RESOLUTION`: then the differences
between the ways it is made are all that is left."""


class Local(NamedTuple):
    """A function near one point."""

    value: float
    gradient: Floats
    curvature: Floats
    """A positive diagonal, about the second derivatives."""


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
        make: gives the function (value, gradient and diagonal curvature at z) for use near a point.
        start: first z, shape (M,); moved into the box.
        lower: shape (M,).
        upper: shape (M,).
        tolerance: ends when the quadratic model predicts less decrease than this.
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
    while True:
        free = ~_blocked(z, here, lower, upper)
        step = z - np.clip(z - _quasi_newton(here, pairs, free), lower, upper)
        converged = here.gradient @ step <= 2 * tolerance
        verdict = "converged" if converged else "iteration cap"
        moved = float(np.max(np.abs(z - made_at), initial=0.0))
        if iterations == max_iterations or (converged and moved <= _NEAR):
            break
        if moved > (_NEAR if converged else _FAR):
            made_at, function = z, make(z)
            here, evaluations = function(z), evaluations + 1
            in_vain = 0 if here.value < best[1].value - _RESOLUTION else in_vain + 1
            best = min(best, (z, here), key=lambda point: point[1].value)
            if in_vain == _PATIENCE:
                verdict = "converged"
                break
            continue
        fraction = 1.0
        while fraction >= _SHORTEST:
            trial = np.clip(z - fraction * step, lower, upper)
            there, evaluations = function(trial), evaluations + 1
            if there.value <= here.value - _SUFFICIENT * (here.gradient @ (z - trial)):
                break
            fraction *= 0.3
        else:
            if pairs:  # a misled memory, most often: once more with the diagonal alone
                pairs.clear()
                continue
            verdict = "stalled"
            break
        pairs.append((trial - z, there.gradient - here.gradient))
        z, here, iterations = trial, there, iterations + 1
    if best[1].value < here.value:
        z, here = best
    free = ~_blocked(z, here, lower, upper)
    residual = float(np.sum(np.abs(here.gradient), where=free))
    return Descent(z, here, evaluations, iterations, residual, verdict)


def _blocked(z: Floats, here: Local, lower: Floats, upper: Floats) -> NDArray[np.bool_]:
    """Which variables a limit keeps from following the gradient."""
    at_lower, at_upper = z <= lower, z >= upper
    return (at_lower & (here.gradient >= 0)) | (at_upper & (here.gradient <= 0))


def _quasi_newton(
    local: Local, pairs: deque[tuple[Floats, Floats]], free: NDArray[np.bool_]
) -> Floats:
    """Two-loop recursion on the free variables; falls back to the diagonal if it climbs."""
    vector = np.where(free, local.gradient, 0.0)
    diagonal = vector / local.curvature
    used = []
    for s, y in reversed(pairs):
        curvature = float(np.sum(s * y, where=free))
        if curvature <= 1e-10 * float(np.sum(s * s * local.curvature, where=free)):
            continue
        weight = float(s @ vector) / curvature
        vector -= weight * np.where(free, y, 0.0)
        used.append((s, y, weight, curvature))
    step = vector / local.curvature
    for s, y, weight, curvature in reversed(used):
        step += (weight - float(y @ step) / curvature) * np.where(free, s, 0.0)
    step = np.clip(step, -_LONGEST_STEP, _LONGEST_STEP)
    if step @ local.gradient <= 0:
        step = np.clip(diagonal, -_LONGEST_STEP, _LONGEST_STEP)
    return step
