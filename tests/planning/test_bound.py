"""The convergence bound, held against federated least squares whose every constant is known."""

import importlib.util
import itertools
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize, minimize_scalar
from scipy.stats import spearmanr

from fedpace.core.errors import InputError
from fedpace.core.sketch import RESIDUAL, SCALED
from fedpace.planning.bound import Bound, BoundConstants, convergence_bound

# The federation is shared with benchmarks/bound_check.py, which prints the tables of theory.md.
_file = Path(__file__).parents[2] / "benchmarks" / "quadratics.py"
_spec = importlib.util.spec_from_file_location("quadratics", _file)
quadratics = importlib.util.module_from_spec(_spec)
sys.modules["quadratics"] = quadratics
_spec.loader.exec_module(quadratics)
Strategy, least_squares = quadratics.Strategy, quadratics.least_squares
expected_gradients = quadratics.expected_gradients

SKETCHES = (SCALED, RESIDUAL)
RANK = CLIENTS = 6
FULL = np.full(CLIENTS, RANK)


def bound_of(fed, how, rounds, **changes) -> Bound:
    constants = quadratics.constants(fed, how.sketch_rank, how.sketch)
    return convergence_bound(
        how.sampling_probability,
        how.sketch_rank,
        fed.data_weight,
        replace(constants, **changes),
        lora_rank=len(fed.start),
        local_steps=how.local_steps,
        learning_rate=how.learning_rate,
        server_step=how.server_step,
        rounds=rounds,
        sketch=how.sketch,
    )


def at_share(fed, how, share):
    """The same strategy at a share of the largest admissible learning rate."""
    how = replace(how, learning_rate=1e-9)
    return replace(how, learning_rate=share * bound_of(fed, how, 1).max_learning_rate)


def random_plan(index):
    rng = np.random.default_rng(index)
    return np.exp(rng.uniform(np.log(0.1), 0, CLIENTS)), rng.integers(1, RANK + 1, CLIENTS)


def largest_ratio(seeds, sketch, steps, rounds):
    ratios = []
    for seed in seeds:
        fed = least_squares(seed, feature_skew=(0.05, 0.3)[seed % 2])
        plans = [(np.full(CLIENTS, q), np.full(CLIENTS, k)) for q in (1.0, 0.3) for k in (6, 3, 1)]
        for (q, k), share in itertools.product([*plans, random_plan(seed)], (0.9, 0.3, 0.05)):
            how = at_share(fed, Strategy(q, k, steps, 1.0, 1.5, sketch), share)
            bound = bound_of(fed, how, rounds)
            assert bound.admissible
            ratios.append(expected_gradients(fed, how, rounds).mean() / bound.total)
    return max(ratios)


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("sketch", SKETCHES)
def test_the_measured_mean_squared_gradient_lies_under_the_bound(sketch, steps):
    assert 0.3 < largest_ratio([0, 1], sketch, steps, 500) <= 1


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, 2, 5, 20])
@pytest.mark.parametrize("sketch", SKETCHES)
def test_it_lies_under_the_bound_for_many_federations(sketch, steps):
    assert 0.3 < largest_ratio(range(2, 12), sketch, steps, 3000) <= 1


def isotropic(noise, start):
    eye = np.broadcast_to(2.0 * np.eye(RANK), (CLIENTS, RANK, RANK))
    weight = np.arange(1.0, CLIENTS + 1) / 21
    deviation = np.full((CLIENTS, RANK), noise)
    return quadratics.Federation(
        weight, eye, np.zeros((CLIENTS, RANK)), deviation, np.full(RANK, start)
    )


@pytest.mark.parametrize("noise, start", [(0.7, 0.0), (0.0, 3.0)])
def test_sgd_on_an_isotropic_quadratic_attains_it(noise, start):
    # Nothing is lost in the initial term and in that of the mini-batches: no constant could shrink.
    fed, rounds = isotropic(noise, start), 10_000
    how = Strategy(np.ones(CLIENTS), FULL, 1, 0.5)  # s = 1 / L
    ratio = expected_gradients(fed, how, rounds).mean() / bound_of(fed, how, rounds).total
    assert 0.999 < ratio <= 1 + 1e-12


@pytest.mark.parametrize(
    "needed, q, k, steps, sketch",
    [
        ("participation", 0.3, 6, 1, SCALED),
        ("sketch", 1.0, 2, 1, SCALED),
        ("sketch", 1.0, 2, 1, RESIDUAL),
        ("drift", 1.0, 6, 8, SCALED),
    ],
)
def test_without_that_term_it_would_be_wrong(needed, q, k, steps, sketch):
    fed = least_squares(3, noise=0.0, target_skew=2.0)
    how = Strategy(np.full(CLIENTS, q), np.full(CLIENTS, k), steps, 1.0, 1.0, sketch)
    how, rounds = at_share(fed, how, 0.3), 10_000_000
    bound = bound_of(fed, how, 10_000)
    late = expected_gradients(fed, how, 10_000)[-1]  # the mean over so many rounds is no less
    rest = bound_of(fed, how, rounds).total * (1 - bound.absorbed) - bound.terms[needed]
    assert rest / (1 - bound.absorbed) < late <= bound.total


def theorem(q, k, a, c, *, rank, steps, eta, server, rounds, sketch):
    """The theorem as docs/theory.md prints it, client by client."""
    s, young = server * eta * steps, 1 if steps == 1 else 2
    h1, h2 = 2 * (steps - 1), 4 / 3 * (steps - 1) * (2 * steps - 1)
    scaled = sketch == SCALED
    smooth = c.smoothness * (sum(a[n] * rank / k[n] for n in range(len(q))) if scaled else 1)
    total, absorbed = 2 * c.initial_gap / (s * rounds), 0.0
    for n in range(len(q)):
        kappa, delta, sigma = rank / k[n], c.heterogeneity[n], c.gradient_noise[n]
        theta, nu = (c.sketch_growth[n], c.sketch_noise[n]) if scaled else (1, 0)
        chi = c.smoothness**2 * (kappa**3 if scaled else 1)
        noise = young * s * smooth * a[n] ** 2 / q[n]
        drift = eta**2 * chi * (a[n] + noise * (1 - q[n] + kappa))
        total += noise * (1 - q[n]) * 2 * delta**2
        total += noise * (kappa - 1) * (2 * theta * delta**2 + nu**2)
        total += noise * kappa * sigma**2 / steps
        moment = 1 + (kappa - 1) * theta
        total += drift * h2 * (2 * moment * delta**2 + (kappa - 1) * nu**2)
        total += drift * h1 * kappa * sigma**2
        own = noise * (1 - q[n] + (kappa - 1) * theta) + drift * h2 * moment
        absorbed += 2 * (1 + c.dissimilarity[n]) * own
    return total / (1 - absorbed)


@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("sketch", SKETCHES)
def test_it_is_the_printed_theorem(sketch, steps):
    rng = np.random.default_rng(4)
    a, (q, k) = rng.dirichlet(np.ones(CLIENTS)), random_plan(1)
    columns = rng.uniform(0.1, 2, (5, CLIENTS))
    c = BoundConstants(1.7, columns[0], columns[1], 3.0, *columns[2:])
    numbers = dict(rank=RANK, steps=steps, eta=1e-4, server=1.3, rounds=70, sketch=sketch)
    bound = convergence_bound(
        q, k, a, c, lora_rank=RANK, local_steps=steps, learning_rate=1e-4, server_step=1.3,
        rounds=70, sketch=sketch,
    )  # fmt: skip
    assert bound.verdict == "holds"
    assert bound.total == pytest.approx(theorem(q, k, a, c, **numbers), rel=1e-12)


def simple_bound(q=0.5, k=4, steps=3, rate=1e-3, sketch=SCALED, **changes):
    constants = BoundConstants(2.0, 0.6, 0.9, 5.0, 0.5, 0.4, 1.0)
    return convergence_bound(
        np.full(4, q), np.full(4, k), [0.1, 0.2, 0.3, 0.4], replace(constants, **changes),
        lora_rank=8, local_steps=steps, learning_rate=rate, rounds=100, sketch=sketch,
    )  # fmt: skip


@pytest.mark.parametrize("sketch", SKETCHES)
def test_one_step_of_everyone_at_full_rank_is_sgd(sketch):
    bound = simple_bound(q=1, k=8, steps=1, rate=0.1, sketch=sketch)
    weights = 0.01 + 0.04 + 0.09 + 0.16
    assert bound.absorbed == 0
    assert bound.total == pytest.approx(2 * 5 / (0.1 * 100) + 0.1 * 2 * weights * 0.9**2)
    assert bound.max_learning_rate == pytest.approx(1 / 2)  # 1 / L


@pytest.mark.parametrize("sketch", SKETCHES)
def test_everyone_at_full_rank_is_local_sgd(sketch):
    eta, steps = 1e-3, 5
    bound = simple_bound(q=1, k=8, steps=steps, rate=eta, sketch=sketch)
    assert bound.terms["participation"] == bound.terms["sketch"] == 0
    s, weights = eta * steps, 0.01 + 0.04 + 0.09 + 0.16
    assert bound.terms["gradient_noise"] == pytest.approx(2 * s * 2 * weights * 0.81 / steps)
    drift = (eta * 2) ** 2 * (1 + 2 * s * 2 * weights)  # eta^2 L^2 sum_n w_n
    assert bound.terms["drift"] == pytest.approx(drift * 4 / 3 * 4 * 9 * 2 * 0.36)
    assert bound.terms["drift_noise"] == pytest.approx(drift * 2 * 4 * 0.81)


def test_a_single_local_step_does_not_drift():
    terms = simple_bound(steps=1).terms
    assert terms["drift"] == terms["drift_noise"] == 0 < terms["sketch"]


@pytest.mark.parametrize("sketch", SKETCHES)
def test_more_participation_and_more_rank_never_hurt(sketch):
    totals = [simple_bound(q=q, rate=1e-4, sketch=sketch).total for q in (0.1, 0.4, 1.0)]
    assert totals == sorted(totals, reverse=True)
    totals = [simple_bound(k=k, rate=1e-5, sketch=sketch).total for k in (1, 2, 5, 8)]
    assert totals == sorted(totals, reverse=True)


@pytest.mark.parametrize("accuracy", [0.03, 1.0, 1e3])
@pytest.mark.parametrize("steps", [1, 6])
@pytest.mark.parametrize("sketch", SKETCHES)
def test_no_other_step_needs_fewer_rounds(sketch, steps, accuracy):
    def needed(rate):  # rounds until the bound at that rate is the accuracy
        bound = simple_bound(steps=steps, rate=rate, sketch=sketch)
        rest = sum(bound.terms.values()) - bound.terms["initial"]
        room = accuracy * (1 - bound.absorbed) - rest
        return 100 * bound.terms["initial"] / room if bound.admissible and room > 0 else np.inf

    somewhere = simple_bound(steps=steps, sketch=sketch)
    best, most = somewhere.rounds_to(accuracy), somewhere.max_learning_rate
    rates = most * np.geomspace(1e-4, 1 - 1e-9, 400)
    grid = [needed(rate) for rate in rates]
    assert np.floor(min(grid) * 0.999) <= best.rounds <= np.ceil(min(grid))
    i = int(np.argmin(grid))
    bracket = (rates[max(i - 1, 0)], rates[min(i + 1, 399)])
    found = minimize_scalar(needed, bounds=bracket, method="bounded", options={"xatol": 1e-9})
    assert best.learning_rate == pytest.approx(found.x, rel=1e-4)


def test_the_conditions_are_the_printed_ones():
    bound = simple_bound(k=2, steps=3, rate=1e-3)  # kappa = 4, L = 2
    local, whole, absorbed = bound.conditions
    assert local.value == pytest.approx(2 * 1e-3 * np.sqrt(6) * 2 * 4**2)
    assert whole.value == pytest.approx(3e-3 * 2 * 4)
    assert absorbed.value == bound.absorbed
    local, whole, _ = simple_bound(k=2, steps=3, rate=1e-3, sketch=RESIDUAL).conditions
    assert local.value == pytest.approx(2 * 1e-3 * np.sqrt(6) * 2)
    assert whole.value == pytest.approx(3e-3 * 2)


@pytest.mark.parametrize("sketch", SKETCHES)
def test_the_bound_at_the_best_step_reaches_the_accuracy_just_then(sketch):
    fed = least_squares(0)
    how = Strategy(*random_plan(0), 4, 1e-6, 1.0, sketch)
    best = bound_of(fed, how, 1).rounds_to(0.4)
    how = replace(how, learning_rate=best.learning_rate)
    assert bound_of(fed, how, best.rounds).total <= 0.4 < bound_of(fed, how, best.rounds - 1).total


def test_rounds_follow_the_planning_form():
    # R <= kbar^p (beta + alpha V), equation (31) of docs/theory.md, at H = 1 and theta = 1.
    a = np.array([0.1, 0.2, 0.3, 0.4])
    for sketch, q, k, accuracy in itertools.product(SKETCHES, (0.1, 1.0), (1, 4, 8), (0.01, 1, 50)):
        bound = simple_bound(q=q, k=k, steps=1, sketch=sketch)
        nu = 0.4 if sketch == SCALED else 0.0
        second = 2 * (1 + 0.5) * accuracy + 2 * 0.36 + nu**2 + 0.81
        volume = np.sum(a**2) * 8 / k * second / q
        mean_kappa = 8 / k if sketch == SCALED else 1.0
        form = mean_kappa * 4 * 2 * 5 / accuracy * (1 + 2 * volume / accuracy)
        assert bound.rounds_to(accuracy).rounds <= np.ceil(form)


@pytest.mark.parametrize(
    "failing, changes",
    [
        ("local step", dict(steps=50, rate=0.003, k=1, heterogeneity=0.0, dissimilarity=0.0)),
        ("global step", dict(q=1, k=8, steps=1, rate=0.6)),
        ("absorbed share", dict(q=0.01, steps=1, rate=0.05)),
    ],
)
def test_outside_its_conditions_it_promises_nothing(failing, changes):
    bound = simple_bound(**changes)
    assert not bound.admissible and bound.total == np.inf
    assert f"{failing} is" in bound.verdict
    limit = bound.max_learning_rate
    assert changes["rate"] > limit
    assert simple_bound(**changes | {"rate": limit * 0.999}).verdict == "holds"
    assert simple_bound(**changes | {"rate": limit * 1.001}).verdict != "holds"


@pytest.mark.slow
@pytest.mark.parametrize("sketch", SKETCHES)
def test_it_orders_plans_as_the_measurement_does(sketch):
    fed = least_squares(1)
    hows = [Strategy(*random_plan(i), 3, 1e-9, 1.0, sketch) for i in range(16)]
    common = 0.5 * min(bound_of(fed, how, 1).max_learning_rate for how in hows)
    hows = [replace(how, learning_rate=common) for how in hows]
    rounds = int(400 / (3 * common))
    promised = [bound_of(fed, how, rounds).total for how in hows]
    measured = [expected_gradients(fed, how, rounds).mean() for how in hows]
    assert spearmanr(promised, measured).statistic > 0.9


# The instrument itself: constants and expectation, each known another way.


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("sketch", SKETCHES)
def test_the_exact_expectation_is_what_the_algorithm_does_on_average(sketch, steps):
    fed, rounds, replicas = least_squares(5), 15, 4000
    how = at_share(fed, Strategy(*random_plan(3), steps, 1.0, 1.5, sketch), 0.9)
    how = replace(how, learning_rate=3 * how.learning_rate)  # rough enough to show a difference
    runs = quadratics.simulate(fed, how, rounds, seed=2, replicas=replicas)
    error = runs.std(axis=0, ddof=1) / np.sqrt(replicas)
    exact = expected_gradients(fed, how, rounds)
    assert np.all(np.abs(runs.mean(axis=0) - exact) <= 4.5 * error + 1e-12)


def client_statistics(fed, n, k, x, sketch):
    """Mean and variance of the gradient that client n sends, by enumerating its index sets."""
    sent = []
    for chosen in itertools.combinations(range(RANK), k):
        s = np.zeros((RANK, RANK))
        s[chosen, chosen] = RANK / k
        seen = s @ x if sketch == SCALED else x
        sent.append(s @ fed.hessian[n] @ (seen - fed.optimum[n]))
    mean = np.mean(sent, axis=0)
    return mean, np.mean(np.sum((sent - mean) ** 2, axis=1))


@pytest.mark.parametrize("sketch", SKETCHES)
def test_the_assumptions_hold_at_every_point_and_no_smaller_delta_will_do(sketch):
    fed, (_, k) = least_squares(2, feature_skew=0.3), random_plan(5)
    c = quadratics.constants(fed, k, sketch)

    def excess(x, n):  # of A4, and of A3, over what the constants allow
        seen = [client_statistics(fed, m, int(k[m]), x, sketch) for m in range(CLIENTS)]
        grad = sum(a * mean for a, (mean, _) in zip(fed.data_weight, seen, strict=True))
        own, variance = seen[n]
        spread = np.sum((own - grad) ** 2) - c.dissimilarity[n] * np.sum(grad**2)
        allowed = c.sketch_growth[n] * np.sum(own**2) + c.sketch_noise[n] ** 2
        return spread - c.heterogeneity[n] ** 2, variance - (RANK / k[n] - 1) * allowed

    rng = np.random.default_rng(0)
    for n, scale in itertools.product(range(CLIENTS), (0.1, 1.0, 10.0, 1e3)):
        assert np.all(np.array(excess(scale * rng.normal(size=RANK), n)) <= 1e-6 * scale**2)
    worst = minimize(lambda x: -excess(x, 0)[0], np.zeros(RANK), tol=1e-10)
    assert worst.fun == pytest.approx(0, abs=1e-6 * c.heterogeneity[0] ** 2)


def test_the_sketch_of_a_separable_loss_grows_exactly_as_assumed():
    rng = np.random.default_rng(7)
    fed = least_squares(0)
    fed = replace(fed, hessian=np.stack([np.diag(rng.uniform(0.5, 2, RANK)) for _ in FULL]))
    for k in (1, 2, 5):
        mean, variance = client_statistics(fed, 0, k, rng.normal(size=RANK), SCALED)
        assert variance == pytest.approx((RANK / k - 1) * np.sum(mean**2))  # theta = 1, nu = 0


def test_lora_is_as_smooth_on_a_bounded_set_as_the_theorem_assumes():
    # Lemma 2 for the loss |W - T|^2 / 2 of W = B S A, at random pairs with |A|, |B| <= rho.
    rng, rho, rank, k = np.random.default_rng(1), 1.5, 4, 2
    target, kappa = rng.normal(size=(5, 3)), rank / k
    slope = kappa * rho**2 + np.linalg.norm(target, 2)  # g: no gradient in W is larger
    smooth = slope + 2 * rho**2
    steepest = 0.0
    for _ in range(2000):
        s = np.diag(kappa * (rng.permutation(rank) < k))
        b, a = (m / np.linalg.norm(m, 2) * rho for m in _matrices(rng, rank))
        db, da = (1e-3 * m for m in _matrices(rng, rank))
        b2, a2 = (m / max(1, np.linalg.norm(m, 2) / rho) for m in (b - db, a - da))
        phi, phi2 = ((w @ y.T, x.T @ w) for x, y, w in
                     ((b, a, b @ s @ a - target), (b2, a2, b2 @ s @ a2 - target)))  # fmt: skip
        moved = np.hypot(np.linalg.norm(b - b2), np.linalg.norm(a - a2))
        turned = np.hypot(np.linalg.norm(phi[0] - phi2[0]), np.linalg.norm(phi[1] - phi2[1]))
        steepest = max(steepest, turned / moved)
    assert 0.1 * kappa * smooth < steepest <= kappa * smooth


def _matrices(rng, rank):
    return rng.normal(size=(5, rank)), rng.normal(size=(rank, 3))


@pytest.mark.parametrize(
    "message, changes",
    [
        ("sampling_probability[1] is 0", dict(q=[0.5, 0])),
        ("sampling_probability[0] is 1.5", dict(q=[1.5, 1])),
        ("sketch_rank[1] is 9", dict(k=[2, 9])),
        ("sketch_rank[0] is 2.5", dict(k=[2.5, 8])),
        ("sketch_rank has shape (3,)", dict(k=[2, 8, 8])),
        ("data_weight sums to 0.9", dict(a=[0.5, 0.4])),
        ("data_weight[0] is -0.5", dict(a=[-0.5, 1.5])),
        ("constants.heterogeneity has shape (3,)", dict(heterogeneity=[1, 2, 3])),
        ("constants.gradient_noise[1] is nan", dict(gradient_noise=[1, np.nan])),
        ("constants.smoothness is 0.0", dict(smoothness=0.0)),
        ("constants.initial_gap is inf", dict(initial_gap=np.inf)),
        ("learning_rate is -1", dict(learning_rate=-1)),
        ("server_step is 0", dict(server_step=0)),
        ("local_steps is 0", dict(local_steps=0)),
        ("rounds is 2.5", dict(rounds=2.5)),
        ("sketch is 'none'", dict(sketch="none")),
    ],
)
def test_bad_input_is_named(message, changes):
    columns = {"q": [0.5, 1], "k": [2, 8], "a": [0.5, 0.5]}
    numbers = dict(lora_rank=8, local_steps=2, learning_rate=0.1, rounds=10)
    constants = dict(smoothness=1.0, heterogeneity=1.0, gradient_noise=1.0, initial_gap=1.0)
    for name, value in changes.items():
        kind = next((d for d in (columns, constants) if name in d), numbers)
        kind[name] = value
    with pytest.raises(InputError) as caught:
        convergence_bound(*columns.values(), BoundConstants(**constants), **numbers)
    assert message in str(caught.value)


def test_an_impossible_accuracy_is_refused():
    with pytest.raises(InputError, match="accuracy is 0"):
        simple_bound().rounds_to(0)
