"""The rule for the server step: identities here; on quadratics in test_stale_quadratics."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from fedpace.core.errors import InputError
from fedpace.planning.overlap.step import server_rate_factor


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
