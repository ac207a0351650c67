r"""The convergence bound, term by term: its value, its conditions, and the rounds it implies.

The theorem is stated and proved in docs/theory.md (sections 3 to 5), for independent sampling,
both sketches and gradients of any size. `convergence_bound` evaluates it; the result names every
term and every step-size condition, and `Bound.rounds_to` gives the rounds to an accuracy at the
best admissible step. Everything is O(N).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq

from fedpace.core.arguments import NUMBER, NUMBERS, check_fields, refuse_where, takes
from fedpace.core.errors import InputError
from fedpace.core.profile import Floats
from fedpace.core.sketch import RESIDUAL, SCALED, Sketch

__all__ = ["Bound", "BoundConstants", "Condition", "RoundsToAccuracy", "convergence_bound"]

_TERMS = ("participation", "sketch", "gradient_noise", "drift", "drift_noise")
"""Terms of the bound, in the order of the columns."""
_PER_CLIENT = ("heterogeneity", "dissimilarity", "gradient_noise", "sketch_noise", "sketch_growth")
"""Constants that may differ from client to client."""
_STEP_ROUNDING = 1e-12
"""Relative error within which a step put exactly on a limit satisfies it."""


@dataclass(frozen=True, slots=True, eq=False)
class BoundConstants:
    """What the theorem assumes of the losses (docs/theory.md, A1 to A4).

    An array has one entry per client, shape (N,); a single number stands for all clients.
    With g the unit of gradients and x that of X:
    """

    smoothness: float
    """L, g/x: smoothness of the client losses without a sketch."""
    heterogeneity: ArrayLike
    """delta_n, g: ||grad F_n - grad f||^2 <= c_n ||grad f||^2 + delta_n^2."""
    gradient_noise: ArrayLike
    """sigma_n, g: deviation of the full-rank mini-batch gradient, whatever the sketch."""
    initial_gap: float
    """f(X_0) - inf f, g x."""
    dissimilarity: ArrayLike = 0.0
    """c_n, see `heterogeneity`."""
    sketch_noise: ArrayLike = 0.0
    """nu_n, g: variance of the sketched gradient <= (kappa_n-1)(theta_n||grad F_n||^2 + nu_n^2).

    For the scaled sketch only; the residual sketch has nu_n = 0 and theta_n = 1."""
    sketch_growth: ArrayLike = 1.0
    """theta_n, see `sketch_noise`; 1 where the loss is linear in X or separable."""

    def __post_init__(self) -> None:
        columns = ("heterogeneity", "gradient_noise", "dissimilarity", "sketch_noise",
                   "sketch_growth")  # fmt: skip
        check_fields(self, smoothness=NUMBER, initial_gap=NUMBER, **dict.fromkeys(columns, NUMBERS))


@dataclass(frozen=True, slots=True)
class Condition:
    """One requirement on the steps, `value` <= `limit` (for the absorbed share: <)."""

    name: str
    """"local step" (2 eta sqrt(H(H-1)) max_n l_n), "global step" (s Lbar) or "absorbed share"."""
    value: float
    limit: float
    holds: bool


@dataclass(frozen=True, slots=True)
class RoundsToAccuracy:
    """The rounds to an accuracy, and the steps at which the bound promises them."""

    rounds: int
    learning_rate: float
    """eta."""
    server_step: float
    """lambda, as given."""


@dataclass(frozen=True, slots=True, eq=False)
class _Rates:
    """The bound as a function of eta alone, at fixed plan, H and lambda."""

    per_term: Floats
    """Each of `_TERMS` per unit of s, eta^2 and s eta^2, (5, 3)."""
    absorbed: Floats
    """The absorbed share likewise, (3,)."""
    gap: float
    local_steps: int
    server_step: float
    steepest: float
    """The first two conditions hold for eta <= 1 / steepest."""

    def steps(self, eta: float) -> Floats:
        s = self.server_step * eta * self.local_steps
        return np.array([s, eta**2, s * eta**2])


@dataclass(frozen=True, slots=True, eq=False)
class Bound:
    r"""An upper bound on :math:`\frac1R\sum_t E\|\nabla f(X_t)\|^2`, taken apart."""

    terms: Mapping[str, float]
    """In units of g^2, before the division by 1 - `absorbed`:

    - "initial": 2 (f(X_0) - f*) / (s R), the way to go;
    - "participation": chance decides who joins, and clients differ; 0 at q = 1;
    - "sketch": chance decides which components are trained; 0 at k = r;
    - "gradient_noise": mini-batches;
    - "drift": H local steps leave the gradient at X_t behind; 0 at H = 1;
    - "drift_noise": the same, caused by mini-batches; 0 at H = 1.
    """
    absorbed: float
    """rho: the share of ||grad f||^2 that the errors may take up."""
    conditions: tuple[Condition, ...]
    max_learning_rate: float
    """Below this rate every condition holds, at the same H and server step."""
    _rates: _Rates = field(repr=False)

    @property
    def admissible(self) -> bool:
        """Whether every condition holds, so that the theorem applies."""
        return all(condition.holds for condition in self.conditions)

    @property
    def total(self) -> float:
        """The bound: the sum of the terms over 1 - `absorbed`; inf where a condition fails."""
        return sum(self.terms.values()) / (1 - self.absorbed) if self.admissible else np.inf

    @property
    def verdict(self) -> str:
        """Say "holds", or which condition fails and what to do about it."""
        failed = [c for c in self.conditions if not c.holds]
        if not failed:
            return "holds"
        what = ", ".join(f"{c.name} is {c.value:.3g}, limit {c.limit:g}" for c in failed)
        return f"no bound: {what}; take learning_rate below {self.max_learning_rate:.3g}"

    def rounds_to(self, accuracy: float) -> RoundsToAccuracy:
        r"""Return the fewest rounds after which the bound is at most `accuracy`.

        The learning rate is optimised at the bound's plan, H and server step; the rate and the
        rounds it was evaluated at play no part. The bound is at most e after R = 2 (f(X_0) - f*)/J
        rounds, J(eta) = s (e - v_1 s - v_2 eta^2 - v_3 s eta^2), s = lambda eta H, v >= 0. J is
        concave, so its stationary point is best, or the limit that the conditions set
        (docs/theory.md, section 5.4).

        Args:
            accuracy: e > 0, target for the mean squared gradient norm, g^2.

        Returns:
            Rounds, learning rate and server step.

        Raises:
            InputError: `accuracy` is not a positive number.
        """
        if not (np.isfinite(accuracy) and accuracy > 0):
            raise InputError(f"accuracy is {accuracy!r}; give a target above 0")
        rates = self._rates
        v = rates.per_term.sum(axis=0) + accuracy * rates.absorbed

        def slope(eta: float) -> float:  # of J, over lambda H
            return float(accuracy - np.array([2, 3, 4]) * v @ rates.steps(eta))

        eta = 1 / rates.steepest
        if slope(eta) < 0:
            eta = float(brentq(slope, 0.0, eta, xtol=1e-12 * eta))
        steps = rates.steps(eta)
        progress = steps[0] * (accuracy - v @ steps)
        return RoundsToAccuracy(
            max(1, int(np.ceil(2 * rates.gap / progress))), eta, rates.server_step
        )


@takes(
    sampling_probability=NUMBERS, sketch_rank=NUMBERS, data_weight=NUMBERS,
    constants=BoundConstants, lora_rank=NUMBER, local_steps=NUMBER, learning_rate=NUMBER,
    rounds=NUMBER, server_step=NUMBER,
)  # fmt: skip
def convergence_bound(
    sampling_probability: ArrayLike,
    sketch_rank: ArrayLike,
    data_weight: ArrayLike,
    constants: BoundConstants,
    *,
    lora_rank: int,
    local_steps: int,
    learning_rate: float,
    rounds: int,
    server_step: float = 1.0,
    sketch: Sketch = SCALED,
) -> Bound:
    r"""Bound the mean squared gradient norm of federated LoRA after R rounds.

    Evaluates the theorem of docs/theory.md, derived there; no gradient is assumed bounded. With
    q = 1 and k = r it is a bound of local SGD; with H = 1 besides it is that of SGD,
    :math:`2(f(X_0)-f^*)/(sR) + sL\sum_n a_n^2\sigma_n^2`.

    Args:
        sampling_probability: q_n, shape (N,), in (0, 1]: the chance that client n takes part and
            is weighted by a_n/q_n. Where it answers only with probability p_n, give q_n p_n.
        sketch_rank: k_n, shape (N,), integers in 1..r.
        data_weight: a_n, shape (N,), at least 0, sum 1.
        constants: L, delta, c, sigma, nu, theta and f(X_0) - f*.
        lora_rank: r.
        local_steps: H.
        learning_rate: eta, x/g.
        rounds: R.
        server_step: lambda.
        sketch: SCALED (the forward pass sees B S A; f is then the sketched objective) or
            RESIDUAL (it sees B A; the server multiplies by r/k).

    Returns:
        The bound by terms, with its conditions; see `Bound.verdict`.

    Raises:
        InputError: a value out of range, or columns of unequal length.

    Example:
        >>> constants = BoundConstants(
        ...     smoothness=1.0, heterogeneity=0.5, gradient_noise=1.0, initial_gap=1.0)
        >>> bound = convergence_bound(
        ...     [0.5, 0.5], [8, 4], [0.5, 0.5], constants,
        ...     lora_rank=8, local_steps=1, learning_rate=0.1, rounds=1000)
        >>> bound.verdict, round(bound.total, 2)
        ('holds', 0.46)
        >>> bound.rounds_to(0.1).rounds
        2640
    """
    q, k, a = plan_columns(sampling_probability, sketch_rank, data_weight, lora_rank)
    check_numbers(
        constants, learning_rate, server_step, sketch, local_steps=local_steps, rounds=rounds
    )
    rates = _rates(q, lora_rank / k, a, constants, local_steps, server_step, sketch)
    steps = rates.steps(learning_rate)
    absorbed = float(rates.absorbed @ steps)
    initial = {"initial": float(2 * rates.gap / (steps[0] * rounds))}
    mean_smooth, stiffness = smoothness_of(lora_rank / k, a, constants.smoothness, sketch)
    local = 2 * learning_rate * np.sqrt(local_steps * (local_steps - 1)) * stiffness
    return Bound(
        initial | dict(zip(_TERMS, map(float, rates.per_term @ steps), strict=True)),
        absorbed,
        (
            _at_most_one("local step", float(local)),
            _at_most_one("global step", float(steps[0] * mean_smooth)),
            Condition("absorbed share", absorbed, 1.0, absorbed < 1),
        ),
        _max_learning_rate(rates),
        rates,
    )


def smoothness_of(kappa: Floats, a: Floats, smooth: float, sketch: Sketch) -> tuple[float, float]:
    """Return Lbar, of f, and max_n l_n, of a client's steps under one fixed sketch."""
    if sketch == RESIDUAL:
        return smooth, smooth
    return smooth * float(a @ kappa), smooth * float(kappa.max()) ** 2


def _rates(
    q: Floats,
    kappa: Floats,
    a: Floats,
    constants: BoundConstants,
    local_steps: int,
    server_step: float,
    sketch: Sketch,
) -> _Rates:
    """Evaluate every factor of the theorem that does not depend on eta."""
    delta, c, sigma, nu, theta = client_constants(constants, len(q), sketch)
    mean_smooth, stiffness = smoothness_of(kappa, a, constants.smoothness, sketch)
    chi = constants.smoothness**2 * (kappa**3 if sketch == SCALED else np.ones_like(kappa))
    young = 1 if local_steps == 1 else 2
    h1, h2 = 2 * (local_steps - 1), 4 / 3 * (local_steps - 1) * (2 * local_steps - 1)
    per_s = young * mean_smooth * a**2 / q
    none = np.zeros_like(a)
    spread, floor = (kappa - 1) * theta, (kappa - 1) * nu**2

    def rate(direct: Floats, drift: Floats) -> list[float]:
        strays = chi * drift
        return [
            float(per_s @ direct),
            float(a @ strays),
            float(per_s @ ((1 - q + kappa) * strays)),
        ]

    return _Rates(
        per_term=np.array(
            [
                rate((1 - q) * 2 * delta**2, none),
                rate(spread * 2 * delta**2 + floor, none),
                rate(kappa * sigma**2 / local_steps, none),
                rate(none, h2 * ((1 + spread) * 2 * delta**2 + floor)),
                rate(none, h1 * kappa * sigma**2),
            ]
        ),
        absorbed=np.array(
            rate(2 * (1 + c) * (1 - q + spread), h2 * 2 * (1 + c) * (1 + spread)),
        ),
        gap=constants.initial_gap,
        local_steps=local_steps,
        server_step=server_step,
        steepest=max(
            2 * np.sqrt(local_steps * (local_steps - 1)) * stiffness,
            server_step * local_steps * mean_smooth,
        ),
    )


def _max_learning_rate(rates: _Rates) -> float:
    def excess(eta: float) -> float:
        return float(rates.absorbed @ rates.steps(eta)) - 1

    most = 1 / rates.steepest
    return most if excess(most) <= 0 else float(brentq(excess, 0.0, most, xtol=1e-12 * most))


def _at_most_one(name: str, value: float) -> Condition:
    return Condition(name, value, 1.0, value <= 1 + _STEP_ROUNDING)


def plan_columns(
    sampling_probability: ArrayLike, sketch_rank: ArrayLike, data_weight: ArrayLike, lora_rank: int
) -> tuple[Floats, Floats, Floats]:
    """Return q, k and a, shape (N,), or say what of them no bound holds for."""
    q, k, a = (
        np.asarray(column, dtype=np.float64)
        for column in (sampling_probability, sketch_rank, data_weight)
    )
    for name, column in (("sampling_probability", q), ("sketch_rank", k), ("data_weight", a)):
        if column.ndim != 1 or len(column) == 0 or column.shape != q.shape:
            raise InputError(f"{name} has shape {column.shape}; give one number for each client")
    refuse_where(~((q > 0) & (q <= 1)), "sampling_probability", q, "lie in (0, 1]")
    whole = (k >= 1) & (k <= lora_rank) & (k == np.floor(k))
    refuse_where(~whole, "sketch_rank", k, f"be an integer in 1..{lora_rank}, the LoRA rank")
    refuse_where(~(a >= 0), "data_weight", a, "be 0 or more")
    if not abs(a.sum() - 1) < 1e-6:
        raise InputError(f"data_weight sums to {a.sum():.6g}, not 1; divide it by its sum")
    return q, k, a


def client_constants(
    constants: BoundConstants, count: int, sketch: Sketch
) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """Return delta, c, sigma, nu and theta of every client, shape (N,); the sketch decides two."""
    delta, c, sigma, nu, theta = (
        _spread(name, getattr(constants, name), count) for name in _PER_CLIENT
    )
    if sketch == RESIDUAL:
        nu, theta = np.zeros(count), np.ones(count)
    return delta, c, sigma, nu, theta


def _spread(name: str, value: ArrayLike, count: int) -> Floats:
    given = np.asarray(value, dtype=np.float64)
    if given.shape not in ((), (count,)):
        raise InputError(f"constants.{name} has shape {given.shape}; there are {count} clients")
    column = np.broadcast_to(given, (count,))
    wrong = ~(np.isfinite(column) & (column >= 0))
    refuse_where(wrong, f"constants.{name}", column, "be a number of 0 or more")
    return column


def check_numbers(
    constants: BoundConstants,
    learning_rate: float,
    server_step: float,
    sketch: Sketch,
    **counts: int,
) -> None:
    """Say which number no bound holds for."""
    for name, value in (
        ("learning_rate", learning_rate),
        ("server_step", server_step),
        ("constants.smoothness", constants.smoothness),
    ):
        if not (np.isfinite(value) and value > 0):
            raise InputError(f"{name} is {value!r}; it must be a number above 0")
    gap = constants.initial_gap
    if not (np.isfinite(gap) and gap >= 0):
        raise InputError(f"constants.initial_gap is {gap!r}; it must be a number of 0 or more")
    for name, count in counts.items():
        if count < 1 or count != int(count):
            raise InputError(f"{name} is {count!r}; it must be an integer of at least 1")
    if sketch not in (SCALED, RESIDUAL):
        raise InputError(f"sketch is {sketch!r}; choose SCALED or RESIDUAL")
