r"""Federated least squares whose constants, and whose expected trajectory, are known exactly.

Client n has the loss phi_n(x) = 1/2 (x - x_n)^T H_n (x - x_n); the r coordinates of x are the rank
components. Its mini-batch gradient carries independent Gaussian noise of known standard deviation
in every coordinate. All index sets are enumerated, so nothing here is estimated:
`simulate` runs the algorithm, `expected_gradients` propagates its first two moments, and
`constants` solves for the smallest constants with which the assumptions hold everywhere.
"""

import functools
import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedpace.core.rng import rng_for
from fedpace.core.sketch import SCALED, Sketch
from fedpace.planning.bound import BoundConstants

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Federation:
    """N quadratic clients over r rank components."""

    data_weight: Floats  # a, (N,)
    hessian: Floats  # H, (N, r, r)
    optimum: Floats  # x_n, (N, r)
    noise: Floats  # standard deviation per client and component, (N, r)
    start: Floats  # X_0, (r,)


@dataclass(frozen=True, slots=True, eq=False)
class Strategy:
    """Who takes part and how it trains."""

    sampling_probability: Floats  # q, (N,)
    sketch_rank: NDArray[np.int64]  # k, (N,)
    local_steps: int
    learning_rate: float
    server_step: float = 1.0
    sketch: Sketch = SCALED

    @property
    def step(self) -> float:
        """s = lambda eta H."""
        return self.server_step * self.learning_rate * self.local_steps


def least_squares(
    seed: int,
    *,
    clients: int = 6,
    rank: int = 6,
    feature_skew: float = 0.1,
    target_skew: float = 0.5,
    noise: float = 0.3,
) -> Federation:
    """Draw linear-regression clients with different features, targets, sizes and noise."""
    rng = rng_for(seed, "simulation", 0)
    truth = rng.normal(size=rank)
    mixing = np.eye(rank) + 0.3 * rng.normal(size=(rank, rank)) / np.sqrt(rank)
    hessian, optimum = np.empty((clients, rank, rank)), np.empty((clients, rank))
    for n in range(clients):
        own = mixing + feature_skew * rng.normal(size=(rank, rank))
        features = rng.normal(size=(50 * rank, rank)) @ own
        targets = features @ (truth + target_skew * rng.normal(size=rank))
        targets += 0.5 * rng.normal(size=len(features))
        hessian[n] = features.T @ features / len(features)
        optimum[n] = np.linalg.lstsq(features, targets, rcond=None)[0]
    size = np.exp(rng.normal(size=clients))
    deviation = noise * np.exp(0.5 * rng.normal(size=(clients, rank)))
    return Federation(size / size.sum(), hessian, optimum, deviation, np.zeros(rank))


@functools.cache
def _index_sets(rank: int, sketch_rank: int) -> Floats:
    """Every index set as a 0/1 row, (J, r); the client draws one of the J uniformly."""
    chosen = np.array(list(itertools.combinations(range(rank), sketch_rank)))
    sets = np.zeros((len(chosen), rank))
    np.put_along_axis(sets, chosen, 1.0, axis=1)
    return sets


def _sketched_gradients(fed: Federation, n: int, sketch_rank: int, sketch: Sketch) -> Floats:
    """The gradient that client n sends, S phi'(...), as affine maps of x: (J, r, r + 1)."""
    rank = len(fed.start)
    scale = _index_sets(rank, sketch_rank) * rank / sketch_rank  # diagonals of S, (J, r)
    seen = scale if sketch == SCALED else np.ones_like(scale)
    linear = scale[:, :, None] * fed.hessian[n] * seen[:, None, :]
    constant = -scale * (fed.hessian[n] @ fed.optimum[n])
    return np.concatenate([linear, constant[:, :, None]], axis=2)


def client_gradients(fed: Federation, sketch_rank: NDArray[np.int64], sketch: Sketch) -> Floats:
    """The gradient of every F_n as an affine map of x, (N, r, r + 1)."""
    return np.stack(
        [_sketched_gradients(fed, n, int(k), sketch).mean(0) for n, k in enumerate(sketch_rank)]
    )


def gradient(fed: Federation, sketch_rank: NDArray[np.int64], sketch: Sketch) -> Floats:
    """The gradient of f = sum_n a_n F_n as an affine map of x, (r, r + 1)."""
    return np.tensordot(fed.data_weight, client_gradients(fed, sketch_rank, sketch), 1)


def _supremum(linear: Floats, constant: Floats, growth: float) -> float:
    """Return sup over z of |E z + g|^2 - growth |z|^2; needs growth > |E|^2, or E = 0."""
    if not linear.any():
        return float(constant @ constant)
    gram = np.eye(len(constant)) - linear @ linear.T / growth
    return float(constant @ np.linalg.solve(gram, constant))


def constants(fed: Federation, sketch_rank: NDArray[np.int64], sketch: Sketch) -> BoundConstants:
    """Constants with which A1 to A4 hold for every x: L, delta, nu, sigma, c, theta.

    c_n and theta_n are set to twice their least possible value; delta_n and nu_n are then the
    least that go with them.
    """
    maps = client_gradients(fed, sketch_rank, sketch)
    mean = np.tensordot(fed.data_weight, maps, 1)
    inverse = np.linalg.inv(mean[:, :-1])
    optimum = -inverse @ mean[:, -1]
    # In z = grad f(x), grad F_n - grad f is (M_n M^-1 - I) z + grad F_n(x*).
    spread = maps[:, :, :-1] @ inverse - np.eye(len(optimum))
    offset = maps[:, :, :-1] @ optimum + maps[:, :, -1]
    c = [2 * np.linalg.norm(e, 2) ** 2 for e in spread]
    delta = np.sqrt([_supremum(*row) for row in zip(spread, offset, c, strict=True)])
    theta, nu = np.ones(len(maps)), np.zeros(len(maps))
    if sketch == SCALED:
        for n, k in enumerate(sketch_rank):
            theta[n], nu[n] = _sketch_constants(fed, n, int(k), maps[n])
    gap = (fed.start - optimum) @ mean[:, :-1] @ (fed.start - optimum) / 2
    return BoundConstants(
        smoothness=max(np.linalg.norm(h, 2) for h in fed.hessian),
        heterogeneity=delta,
        gradient_noise=np.sqrt((fed.noise**2).sum(1)),
        initial_gap=float(gap),
        sketch_noise=nu,
        dissimilarity=np.array(c),
        sketch_growth=theta,
    )


def _sketch_constants(
    fed: Federation, n: int, sketch_rank: int, mean: Floats
) -> tuple[float, float]:
    """Twice the least theta_n of A3, and the least nu_n that goes with it."""
    rank = len(fed.start)
    excess = rank / sketch_rank - 1
    if excess == 0:
        return 1.0, 0.0
    inverse = np.linalg.inv(mean[:, :-1])
    # The variance of the sketched gradient as a quadratic in z = grad F_n(x).
    lift = np.block([[inverse, -(inverse @ mean[:, -1])[:, None]], [np.zeros(rank), 1.0]])
    deviation = (_sketched_gradients(fed, n, sketch_rank, SCALED) - mean) @ lift
    form = np.einsum("jab,jac->bc", deviation, deviation) / len(deviation) / excess
    theta = 2 * np.linalg.norm(form[:-1, :-1], 2)
    cross = form[:-1, -1]
    top = cross @ np.linalg.solve(theta * np.eye(rank) - form[:-1, :-1], cross) + form[-1, -1]
    return float(theta), float(np.sqrt(max(top, 0.0)))


def _round_maps(fed: Federation, n: int, how: Strategy) -> tuple[Floats, Floats]:
    """Client n's mean local gradient as affine maps (J, r, r + 1), and its noise (J, r, r)."""
    rank, k = len(fed.start), int(how.sketch_rank[n])
    chosen = _index_sets(rank, k)
    sent = _sketched_gradients(fed, n, k, how.sketch)
    # The residual sketch moves by P = S k/r locally; the server multiplies by r/k.
    move = how.learning_rate * (1.0 if how.sketch == SCALED else k / rank)
    shrink = np.eye(rank) - move * sent[:, :, :-1]
    noise = (chosen * rank / k * fed.noise[n])[:, :, None] * np.eye(rank)
    power, total = np.broadcast_to(np.eye(rank), shrink.shape), np.zeros_like(shrink)
    covariance = np.zeros_like(shrink)
    for _ in range(how.local_steps):
        total += power
        spread = power @ noise / how.local_steps
        covariance += spread @ spread.transpose(0, 2, 1)
        power = power @ shrink
    maps = total @ sent / how.local_steps
    return maps, covariance


def expected_gradients(fed: Federation, how: Strategy, rounds: int) -> Floats:
    """Return E|grad f(X_t)|^2 for t = 0..rounds-1 without sampling error, shape (rounds,).

    With y = [X; 1], E[y y^T] obeys a linear recursion: participation, sketch and noise of a round
    are independent of X_t.
    """
    rank, s = len(fed.start), how.step
    advance = np.eye(rank + 1)
    spread = np.zeros((rank, rank, rank + 1, rank + 1))
    for n, (a, q) in enumerate(zip(fed.data_weight, how.sampling_probability, strict=True)):
        maps, covariance = _round_maps(fed, n, how)
        mean = maps.mean(0)
        advance[:-1] -= s * a * mean
        second = np.einsum("jab,jcd->acbd", maps, maps) / len(maps)
        spread += a**2 * (second / q - np.einsum("ab,cd->acbd", mean, mean))
        spread[:, :, -1, -1] += a**2 * covariance.mean(0) / q
    carry = np.einsum("ab,cd->acbd", advance, advance)
    carry[:-1, :-1] += s**2 * spread
    carry = carry.reshape((rank + 1) ** 2, -1)

    grad = gradient(fed, how.sketch_rank, how.sketch)
    block = [(grad.T @ grad).ravel()]  # functionals of E[y y^T]: this round, the next, ...
    while len(block) < min(rounds, 64):
        block.append(block[-1] @ carry)
    leap = np.linalg.matrix_power(carry, len(block))
    y = np.append(fed.start, 1.0)
    moment, measured = np.outer(y, y).ravel(), []
    for _ in range(0, rounds, len(block)):
        measured.append(np.array(block) @ moment)
        moment = leap @ moment
    return np.concatenate(measured)[:rounds]


def simulate(fed: Federation, how: Strategy, rounds: int, *, seed: int, replicas: int) -> Floats:
    """Run the algorithm; return |grad f(X_t)|^2 per replica and round, (replicas, rounds)."""
    rng = rng_for(seed, "simulation", 1)
    count, rank = fed.optimum.shape
    ratio = rank / how.sketch_rank
    x = np.tile(fed.start, (replicas, 1))
    grad = gradient(fed, how.sketch_rank, how.sketch)
    measured = np.empty((replicas, rounds))
    for t in range(rounds):
        measured[:, t] = np.sum((x @ grad[:, :-1].T + grad[:, -1]) ** 2, axis=1)
        joined = rng.random((replicas, count)) < how.sampling_probability
        total = np.zeros_like(x)
        for n in range(count):
            order = rng.random((replicas, rank)).argsort(axis=1).argsort(axis=1)
            chosen = (order < how.sketch_rank[n]).astype(np.float64)
            local = x.copy()
            for _ in range(how.local_steps):
                noise = fed.noise[n] * rng.normal(size=x.shape)
                if how.sketch == SCALED:
                    s = ratio[n] * chosen
                    step = s * ((s * local - fed.optimum[n]) @ fed.hessian[n] + noise)
                else:
                    step = chosen * ((local - fed.optimum[n]) @ fed.hessian[n] + noise)
                local -= how.learning_rate * step
            delta = (x - local) * (1.0 if how.sketch == SCALED else ratio[n])
            weight = fed.data_weight[n] / how.sampling_probability[n]
            total += weight * joined[:, n, None] * delta
        x = x - how.server_step * total
    return measured
