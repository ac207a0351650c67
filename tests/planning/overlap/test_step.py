"""The rule for the server step: identities, and one tuned rate for any beat on quadratics."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from fedpace.core.errors import InputError
from fedpace.planning.overlap.step import DECAY_POWER, MOST_NOISE, server_rate_factor, useful_rate


def benchmark(name):
    file = Path(__file__).parents[3] / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# Exact moments of late gradients, and of rates that fall; they print the tables of the log.
delay_price, server_decay = benchmark("delay_price"), benchmark("server_decay")


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_the_rounds_it_was_tuned_on_keep_their_rate(optimizer):
    assert server_rate_factor(optimizer, 3.0, 3.0) == 1.0


@pytest.mark.parametrize("noise", [0.0, 0.3, 7.0])
def test_it_is_the_step_of_most_progress(noise):
    # One step of x <- x - s g on x^2 / 2 from x = 1, with E g = 1 and var g = noise.
    def after(s):
        return (1 - s) ** 2 + s**2 * noise

    best = minimize_scalar(after, bounds=(0, 2), method="bounded", options={"xatol": 1e-9}).x
    quiet = minimize_scalar(lambda s: (1 - s) ** 2, bounds=(0, 2), method="bounded").x
    assert server_rate_factor("sgd", noise, 0.0) == pytest.approx(best / quiet, rel=1e-4)
    # Adam's rate of the same move: it divides by sqrt(E g^2).
    assert server_rate_factor("adam", noise, 0.0) == pytest.approx(
        best / quiet * np.sqrt(1 + noise), rel=1e-4
    )


def test_the_moments_are_those_of_simulated_runs():
    rate, delay, noise, curvature = 0.3, 2, 1.5, np.array([1.0, 0.3])
    rng = np.random.default_rng(0)
    x = rng.choice([-1.0, 1.0], size=(20_000, 2))  # E x^2 = 1
    past = [x] * (delay + 1)
    for _ in range(6):
        u = curvature * past[0]
        # The exact rule takes the noise of the mean square, which runs share.
        spread = np.sqrt(noise * np.mean(u**2, axis=0).sum() / 2)
        x = x - rate * (u + spread * rng.standard_normal(x.shape))
        past = [*past[1:], x]
    falls = delay_price.sgd_falls(rate, delay, noise, curvature, 8)
    assert falls[:3].tolist() == [1.0] * 3
    assert np.mean(x**2 @ curvature) / 1.3 == pytest.approx(falls[-1], rel=0.02)


@pytest.mark.parametrize("server, slack", [("sgd", 1.15), ("adam", 1.6)])
def test_one_tuned_rate_serves_any_beat_of_a_quadratic(server, slack):
    # Beats at the rule's rate against those at the best of a grid, by noise and delay. For Adam the
    # rule is careful: on quadratics noise alone asks for no smaller rate, with clients it does.
    curvature, tuned_noise, fall = np.geomspace(0.1, 1.0, 8), 0.7, 20.0
    falls, rates = delay_price.SERVERS[server]

    def beats(rate, delay, noise):
        return delay_price.beats_to(falls(rate, delay, noise, curvature, 80), fall)

    tuned = min(rates, key=lambda rate: beats(rate, 0, tuned_noise))
    for noise, delay in ((4.0, 0), (0.7, 2), (4.0, 2)):
        best = min(beats(rate, delay, noise) for rate in rates[::2])
        rule = server_rate_factor(server, noise, tuned_noise, delay_beats=delay)
        assert beats(tuned * rule, delay, noise) < slack * best
    # Without the rule: SGD diverges, Adam takes a quarter longer.
    best = min(beats(rate, 4, 4.0) for rate in rates[::2])
    assert beats(tuned, 4, 4.0) > 1.2 * best


def test_what_cannot_have_arrived_is_not_moved_for():
    # SGD's step is smaller by itself. Adam's move is rate * present / sqrt(E G^2), with
    # E G^2 = present^2 + present * noise: it shall be that share of the full one.
    for noise, present in ((0.0, 0.5), (4.0, 0.1), (4.0, 1.0)):
        rate = server_rate_factor("adam", noise, 2.0, present=present)
        move = rate * present / np.sqrt(present**2 + present * noise)
        full = server_rate_factor("adam", noise, 2.0) / np.sqrt(1 + noise)
        assert move == pytest.approx(present * full)
        assert server_rate_factor("sgd", noise, 2.0, present=present) == pytest.approx(
            3 / (1 + noise)
        )
    assert server_rate_factor("adam", 1.0, 2.0, present=0.0) == 0.0


@pytest.mark.parametrize("changes, message", [
    (dict(noise=-1.0), "noise is -1"), (dict(tuned_noise=np.nan), "tuned_noise is nan"),
    (dict(delay_beats=-0.5), "delay_beats is -0.5"), (dict(present=1.5), "present is 1.5"),
    (dict(theta=np.inf), "theta is inf"), (dict(server_optimizer="lion"), "'lion'"),
])  # fmt: skip
def test_bad_input_is_named(changes, message):
    with pytest.raises(InputError, match=message):
        server_rate_factor(**dict(server_optimizer="sgd", noise=1.0, tuned_noise=1.0) | changes)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("delay", [0.0, 2.0])
def test_useful_rates_of_two_schedules_at_one_time_are_as_the_rule_has_it(optimizer, delay):
    signal, tuned_noise, noise = 0.7, 1.5, 4.0
    then = useful_rate(optimizer, signal * (1 + tuned_noise), tuned_noise / (1 + tuned_noise))
    now = useful_rate(optimizer, signal * (1 + noise), noise / (1 + noise), delay_beats=delay)
    rule = server_rate_factor(optimizer, noise, tuned_noise, delay_beats=delay)
    assert now / then == pytest.approx(rule)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_the_useful_rate_is_the_best_of_every_step_of_a_training(optimizer):
    """x <- x - r g / d on x^2 / 2, var g fixed: the best r of each step, found by search."""
    square, variance, best, rule = 9.0, 0.5, [], []
    for _ in range(30):
        scale = np.sqrt(square + variance) if optimizer == "adam" else 1.0

        def after(rate, square=square, scale=scale):
            return (1 - rate / scale) ** 2 * square + (rate / scale) ** 2 * variance

        found = minimize_scalar(after, bounds=(0, 9), method="bounded", options={"xatol": 1e-9})
        best.append(found.x)
        rule.append(useful_rate(optimizer, square + variance, variance / (square + variance)))
        square = after(0.2 * found.x)
    assert variance / square > 5, "noise that never prevails would prove nothing"
    np.testing.assert_allclose(np.array(rule) / rule[0], np.array(best) / best[0], rtol=1e-4)


@pytest.mark.parametrize("server", ["sgd", "adam"])
@pytest.mark.parametrize("decades", [0, 2])
def test_a_rate_that_follows_the_noise_costs_nothing_early_and_ends_lower(server, decades):
    """Each is given the rate that serves it best at an eighth of the steps."""
    case = np.geomspace(10.0**-decades, 1.0, 8), 0.2, 400, server
    follows = server_decay.early_and_late(DECAY_POWER, *case)
    stays = server_decay.early_and_late(0.0, *case)
    assert follows[0] < 1.01 * stays[0]
    assert follows[1] < 0.7 * stays[1]


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_pure_noise_leaves_a_step_that_is_not_zero(optimizer):
    assert useful_rate(optimizer, 1.0, 1.0) == pytest.approx(0.01)
    assert useful_rate(optimizer, 1.0, MOST_NOISE) == useful_rate(optimizer, 1.0, 1.0)
    assert useful_rate(optimizer, 1.0, -0.1) == useful_rate(optimizer, 1.0, 0.0) == 1.0


def test_a_useful_rate_of_another_server_is_refused():
    with pytest.raises(InputError, match="server_optimizer is 'yogi'"):
        useful_rate("yogi", 1.0, 0.5)
