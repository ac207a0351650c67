"""The rule for the server step: identities, and one tuned rate for any beat on quadratics."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from fedpace.core.errors import InputError
from fedpace.planning.overlap.step import server_rate_factor

# Exact moments of late gradients; the benchmark prints the tables of the log.
_file = Path(__file__).parents[3] / "benchmarks" / "delay_price.py"
_spec = importlib.util.spec_from_file_location("delay_price", _file)
delay_price = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(delay_price)


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
