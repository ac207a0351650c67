r"""The convergence bound for updates that count beats after they were started.

The theorem is stated and proved in docs/theory.md, section 9; every line of it is a line here.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from fedpace.core.arguments import refuse_where
from fedpace.core.sketch import RESIDUAL, Sketch
from fedpace.planning.bound import (
    BoundConstants,
    check_numbers,
    client_constants,
    plan_columns,
    smoothness_of,
)

__all__ = ["StaleBound", "stale_bound"]


@dataclass(frozen=True, slots=True)
class StaleBound:
    r"""An upper bound on :math:`\frac1T\sum_t E\|\nabla f(X_t)\|^2`."""

    total: float
    """The bound; inf where a condition fails."""
    absorbed: float
    """rho, below 1 where the theorem holds."""
    global_step: float
    """s Lbar + 8 s^2 sum a L^2 d^2, at most 1 where the theorem holds."""
    local_step: float
    """2 eta sqrt(H (H - 1)) max l_n, at most 1 where the theorem holds."""


def stale_bound(
    start_probability: ArrayLike,
    age_beats: ArrayLike,
    sketch_rank: ArrayLike,
    data_weight: ArrayLike,
    constants: BoundConstants,
    *,
    lora_rank: int,
    local_steps: int,
    learning_rate: float,
    beats: int,
    server_step: float = 1.0,
    sketch: Sketch = RESIDUAL,
) -> StaleBound:
    """Bound the mean squared gradient norm of overlapping rounds after T beats.

    Args:
        start_probability: q_n, chance that an idle client starts and answers, shape (N,).
        age_beats: b_n, whole, >= 1; with 1 for all it is `planning.bound.convergence_bound`.
        sketch_rank: k_n, shape (N,).
        data_weight: a_n, shape (N,), sums to 1.
        constants: as for `convergence_bound`.
        lora_rank: r.
        local_steps: H.
        learning_rate: eta.
        beats: T.
        server_step: lambda.
        sketch: RESIDUAL or SCALED.

    Returns:
        The bound and its conditions.

    Raises:
        InputError: an age that is not a whole number of at least 1, or what `convergence_bound`
            refuses.
    """
    q, k, a = plan_columns(start_probability, sketch_rank, data_weight, lora_rank)
    check_numbers(
        constants, learning_rate, server_step, sketch, local_steps=local_steps, beats=beats
    )
    b = np.broadcast_to(np.asarray(age_beats, dtype=np.float64), q.shape)
    whole_beats = (b >= 1) & (b == np.floor(b))
    refuse_where(~whole_beats, "age_beats", b, "be a whole number of at least 1")
    delta, c, sigma, nu, theta = client_constants(constants, len(q), sketch)
    smooth, kappa, scaled = constants.smoothness, lora_rank / k, not sketch.whole
    own = smooth * kappa if scaled else np.full_like(kappa, smooth)  # L_n
    mean_smooth, stiffness = smoothness_of(kappa, a, smooth, sketch)  # Lbar
    chi = smooth**2 * (kappa**3 if scaled else np.ones_like(kappa))
    eta, steps = learning_rate, local_steps
    s, y = server_step * eta * steps, 1 if steps == 1 else 2
    h1, h2 = 2 * (steps - 1), 4 / 3 * (steps - 1) * (2 * steps - 1)
    grows = 1 + (kappa - 1) * theta

    drift = (
        eta**2 * chi * (h1 * kappa * sigma**2 + h2 * (2 * grows * delta**2 + (kappa - 1) * nu**2))
    )
    drift_slope = 2 * eta**2 * chi * h2 * grows * (1 + c)
    mean, mean_slope = y * (2 * delta**2 + drift), y * (2 * (1 + c) + drift_slope)
    noise = y * (
        kappa * sigma**2 / steps + (kappa - 1) * (2 * theta * delta**2 + nu**2) + kappa * drift
    )
    noise_slope = y * (2 * (kappa - 1) * theta * (1 + c) + kappa * drift_slope)

    d = b - 1
    longest, cycle = float(d.max()), d + 1 / q
    late = longest > 0
    double = 2 if late else 1
    spans = np.where(d > 0, d + 1 - q, 0.0)
    floor = float((a**2 * (1 + d / beats)) @ ((1 - q) / (q**2 * cycle) * mean + cycle * noise))
    slope = float(a**2 @ ((1 - q) / q * mean_slope + q * cycle**2 * noise_slope))
    gain = s * mean_smooth + 2 * (s * mean_smooth) ** 2 * longest
    gain += 8 * s**2 * float((a * own**2) @ (d**2 + 2 * longest * b)) * late
    apart = 2 * s**2 * (mean_smooth**2 + 4 * float(a @ own**2))
    absorbed = double * (
        double * float((a * b) @ drift_slope)
        + gain * slope
        + 2 * longest * apart * float((a * spans * d) @ mean_slope)
    )
    whole = double * (
        2 * constants.initial_gap / (s * beats)
        + double * float(a @ drift)
        + gain * floor
        + apart * float((a * spans**2) @ mean)
    )
    global_step = s * mean_smooth + 8 * s**2 * float((a * own**2) @ d**2)
    local = 2 * eta * float(np.sqrt(steps * (steps - 1))) * stiffness
    holds = absorbed < 1 and global_step <= 1 + 1e-12 and local <= 1 + 1e-12
    return StaleBound(whole / (1 - absorbed) if holds else np.inf, absorbed, global_step, local)
