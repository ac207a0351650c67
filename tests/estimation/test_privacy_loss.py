"""The accountant: against published values and integrals; the lemma that plans rest on."""

import numpy as np
import pytest
from scipy.integrate import quad

from fedpace.core.errors import InputError
from fedpace.estimation.privacy_loss import ORDERS, PrivacyLimit, epsilon, round_loss

pytest.importorskip("dp_accounting")


def one(q, z):
    """The loss of a client alone: its own weight is the largest."""
    return round_loss(np.array([q]), np.ones(1), z)


def by_integral(q, z, order):
    """D_order of (1-q) N(0, z^2) + q N(1, z^2) from N(0, z^2), by quadrature."""

    def inside(y):
        # Less what integrates to 1, so that a small divergence keeps its digits.
        more = q * np.expm1((2 * y - 1) / (2 * z * z))
        excess = np.expm1(order * np.log1p(more)) - order * more
        return excess * np.exp(-y * y / (2 * z * z)) / (z * np.sqrt(2 * np.pi))

    # The integrand has one bump at 0 and one near `order`.
    bounds = -10 * z, order + 10 * z
    value = quad(inside, *bounds, points=[0, order], limit=500, epsabs=0, epsrel=1e-9)[0]
    return np.log1p(value) / (order - 1)


@pytest.mark.parametrize(("q", "z"), [(0.01, 4.0), (0.2, 1.0), (0.7, 2.0), (1.0, 1.5)])
@pytest.mark.parametrize("order", [2, 3, 8])
def test_the_loss_of_a_round_is_the_integral_that_defines_it(q, z, order):
    found = one(q, z)[0, ORDERS.index(order)]
    assert found == pytest.approx(by_integral(q, z, order), rel=1e-5)


@pytest.mark.parametrize(
    ("q", "z", "rounds", "delta", "published", "below"),
    [
        # Abadi et al., "Deep learning with differential privacy", CCS 2016, section 3.2; the step
        # from moments to epsilon has become tighter (Canonne et al. 2020), so less is right.
        (0.01, 4.0, 10_000, 1e-5, 1.26, 0.25),
        # TensorFlow Privacy's tutorial on MNIST: 60 epochs of 256 of 60,000 at 1.1; likewise.
        (256 / 60_000, 1.1, 14_063, 1e-5, 3.0, 0.5),
    ],
)
def test_published_values(q, z, rounds, delta, published, below):
    found = float(epsilon(rounds * one(q, z), delta)[0])
    assert published - below < found <= published


def test_a_lone_gaussian_round_is_close_to_the_exact_curve_and_above_it():
    """Balle and Wang 2018: delta(epsilon) of the Gaussian mechanism in closed form."""
    from scipy.stats import norm

    z, delta = 2.0, 1e-4
    found = float(epsilon(one(1.0, z), delta)[0])

    def exact(eps):
        return norm.cdf(0.5 / z - eps * z) - np.exp(eps) * norm.cdf(-0.5 / z - eps * z)

    assert exact(found) <= delta and exact(0.8 * found) > delta


def test_each_client_has_the_noise_over_its_own_weight():
    q, weight = np.array([0.2, 0.5, 1.0]), np.array([4.0, 1.0, 2.0])
    both = round_loss(q, weight, 1.5)
    for n, z in enumerate(1.5 * 4.0 / weight):
        assert np.array_equal(both[n], one(q[n], z)[0])
    assert not round_loss(q, np.array([4.0, 0.0, 2.0]), 1.5)[1].any()  # who cannot be asked
    assert np.isinf(epsilon(one(0.5, 0.0), 1e-5)).all()  # no noise
    assert epsilon(np.zeros((2, len(ORDERS))), 1e-5).tolist() == [0, 0]


def test_at_a_given_noise_who_is_asked_more_often_loses_less():
    """The lemma of docs/theory.md, section 10: w = b / q at one noise, the loss falls with q."""
    b, noise = 0.1, 1.0
    losses = [one(q, noise * q / b)[0] for q in (0.1, 0.2, 0.4, 0.8, 1.0)]
    assert (np.diff(losses, axis=0) < 0).all()


@pytest.mark.parametrize("limit", [0.5, 3.0, 30.0])
def test_the_largest_rate_is_where_the_limit_is_met(limit):
    asked = PrivacyLimit(1.0, 1e-3, limit, 50)
    rate = asked.largest_rate()
    spent = [float(epsilon(50 * one(r, 1.0), 1e-3)[0]) for r in (rate, min(1.0, rate * 1.001))]
    assert spent[0] <= limit
    assert rate == 1 or spent[1] > limit


def test_no_noise_and_limits_that_are_none():
    assert PrivacyLimit(0.0, 1e-3, 3.0, 5).largest_rate() == 0
    assert PrivacyLimit(50.0, 1e-3, 3.0, 5).largest_rate() == 1
    for wrong in ((-1.0, 0.1, 1.0, 5), (1.0, 1.0, 1.0, 5), (1.0, 0.1, 0.0, 5), (1.0, 0.1, 1.0, 0)):
        with pytest.raises(InputError, match="give"):
            PrivacyLimit(*wrong)
