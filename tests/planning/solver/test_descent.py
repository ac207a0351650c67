"""Projected quasi-Newton against SciPy's L-BFGS-B and in cases with a known end."""

import numpy as np
import pytest
from scipy.optimize import minimize

from fedpace.planning.solver.descent import Local, descend


def log_sum(seed, count=30):
    """A smooth convex function of the planners' kind: log of a sum of exponentials and its like."""
    rng = np.random.default_rng(seed)
    up, down = rng.lognormal(size=count), rng.lognormal(size=count)

    def value(z):
        grow, fall = up * np.exp(z), down * np.exp(-z)
        local = np.log(1 + grow.sum()) + np.log(1 + fall.sum())
        by_up, by_down = grow / (1 + grow.sum()), fall / (1 + fall.sum())
        return Local(float(local), by_up - by_down, by_up + by_down)

    return value


@pytest.mark.parametrize("seed", range(4))
def test_it_ends_where_scipy_ends_within_the_box(seed):
    value = log_sum(seed)
    lower, upper = np.full(30, -1.0), np.linspace(-0.5, 2.0, 30)
    made = descend(lambda near: value, np.zeros(30), lower, upper, tolerance=1e-12)
    theirs = minimize(
        lambda z: value(z).value, np.zeros(30).clip(lower, upper),
        jac=lambda z: value(z).gradient, bounds=list(zip(lower, upper, strict=True)),
        method="L-BFGS-B", options={"ftol": 1e-15, "gtol": 1e-10, "maxiter": 2000},
    )  # fmt: skip
    assert made.verdict == "converged"
    assert made.local.value == pytest.approx(theirs.fun, abs=1e-9)
    assert np.all((made.z >= lower) & (made.z <= upper))
    assert made.residual < 1e-4


def test_coupled_variables_are_moved_together():
    """f = (x + y - 1)^2 + 0.01 (x - y)^2: with its Hessian one step is all."""

    def valley(z):
        x, y = z
        gradient = np.array([2 * (x + y - 1) + 0.02 * (x - y), 2 * (x + y - 1) - 0.02 * (x - y)])
        value = (x + y - 1) ** 2 + 0.01 * (x - y) ** 2
        return Local(float(value), gradient, np.full(2, 2.02), np.full(1, 1.98))

    made = descend(lambda near: valley, np.array([0.9, 0.0]), np.full(2, -9.0), np.full(2, 9.0))
    np.testing.assert_allclose(made.z, [0.5, 0.5], atol=1e-6)
    assert made.iterations <= 2


def test_the_function_is_made_anew_where_it_has_gone_far():
    made_at = []

    def make(near):
        made_at.append(float(near[0]))
        return lambda z: Local(float((z[0] - 3) ** 2), 2 * (z - 3), np.full(1, 2.0))

    end = descend(make, np.zeros(1), np.full(1, -9.0), np.full(1, 9.0))
    assert end.z[0] == pytest.approx(3)
    assert made_at[0] == 0 and abs(made_at[-1] - 3) < 0.02


def test_an_iteration_cap_is_told():
    value = log_sum(0)
    end = descend(lambda near: value, np.full(30, 5.0), np.full(30, -9.0), np.full(30, 9.0),
                  max_iterations=1)  # fmt: skip
    assert end.verdict == "iteration cap" and end.iterations == 1
