import inspect
from functools import partial

import numpy as np
import pytest
from scipy import optimize

from fedpace.core.errors import InputError
from fedpace.core.profile import System
from fedpace.experiment.config import NetworkSection
from fedpace.wireless import bandwidth
from fedpace.wireless.bandwidth import allocate_bandwidth
from fedpace.wireless.channel import bandwidth_for_rate, rate_bps

KINDS = ["spectral_efficiency", "snr_hz"]
BAND = 5e6

finish_together = partial(allocate_bandwidth, rule="equal-finish")


def draw(count, kind, seed=0):
    rng = np.random.default_rng(seed)
    start = rng.lognormal(1.0, 1.0, count)
    bits = rng.lognormal(15.0, 0.7, count)
    link = {
        "spectral_efficiency": rng.lognormal(0.5, 0.7, count),
        "snr_hz": rng.lognormal(15.0, 1.5, count),
    }
    return start, bits, {kind: link[kind]}


def finish(start, bits, b, link):
    with np.errstate(divide="ignore"):
        return start + bits / rate_bps(b, **link)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 2, 7, 100, 3000])
def test_the_band_is_spent_and_everyone_finishes_together(count, kind):
    start, bits, link = draw(count, kind)
    allocation = finish_together(start, bits, BAND, **link)
    np.testing.assert_allclose(allocation.bandwidth_hz.sum(), BAND, rtol=1e-13)
    np.testing.assert_allclose(allocation.finish_seconds, allocation.round_seconds, rtol=1e-13)
    np.testing.assert_allclose(
        allocation.finish_seconds, finish(start, bits, allocation.bandwidth_hz, link), rtol=1e-15
    )


@pytest.mark.parametrize("kind", KINDS)
def test_no_other_split_finishes_earlier(kind):
    start, bits, link = draw(8, kind)
    best = finish_together(start, bits, BAND, **link)
    rng = np.random.default_rng(1)
    anywhere = rng.dirichlet(np.ones(8), 500)
    near = best.bandwidth_hz / BAND * np.exp(rng.normal(0, 1e-4, (500, 8)))
    near /= near.sum(axis=1, keepdims=True)
    for split in (anywhere, near):
        others = finish(start, bits, split * BAND, link).max(axis=1)
        assert np.all(others >= best.round_seconds * (1 - 1e-14))
    assert np.all(others < best.round_seconds * 1.01)  # the near ones really are near


def test_round_time_agrees_with_a_bracketing_root_finder():
    start, bits, link = draw(30, "spectral_efficiency")
    efficiency = link["spectral_efficiency"]
    reference = optimize.brentq(
        lambda t: np.sum(bits / efficiency / (t - start)) - BAND,
        start.max() * (1 + 1e-9), start.max() + 1e4, xtol=1e-13, rtol=1e-14,
    )  # fmt: skip
    ours = finish_together(start, bits, BAND, **link).round_seconds
    np.testing.assert_allclose(ours, reference, rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_round_time_agrees_with_a_general_constrained_minimiser(kind):
    start, bits, link = draw(4, kind)
    shares = np.full(4, 0.25)
    first = np.append(shares, finish(start, bits, BAND / 4, link).max())
    found = optimize.minimize(
        lambda x: x[-1], first, method="SLSQP", bounds=[(1e-6, 1)] * 4 + [(0, None)],
        constraints=[
            {"type": "ineq", "fun": lambda x: 1 - x[:4].sum()},
            {"type": "ineq", "fun": lambda x: x[-1] - finish(start, bits, x[:4] * BAND, link)},
        ],
        options={"ftol": 1e-14, "maxiter": 500},
    )  # fmt: skip
    ours = finish_together(start, bits, BAND, **link)
    np.testing.assert_allclose(found.x[-1], ours.round_seconds, rtol=1e-7)
    np.testing.assert_allclose(found.x[:4] * BAND, ours.bandwidth_hz, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_price_of_band_is_the_multiplier_of_the_optimality_conditions(kind):
    # KKT of min T: weights that sum to 1 with weight_n |d finish_n / d b_n| = mu for all n,
    # hence mu = 1 / sum 1 / |d finish_n / d b_n|, and mu = -dT/dW.
    start, bits, link = draw(12, kind)
    b = finish_together(start, bits, BAND, **link).bandwidth_hz
    h = 1e-5
    fall = (finish(start, bits, b * (1 - h), link) - finish(start, bits, b * (1 + h), link)) / (
        2 * h * b
    )
    wider, narrower = (
        finish_together(start, bits, BAND * f, **link).round_seconds for f in (1 + h, 1 - h)
    )
    np.testing.assert_allclose(1 / np.sum(1 / fall), (narrower - wider) / (2 * h * BAND), rtol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("capped", [False, True])
def test_equal_finish_is_never_later_than_equal_share(kind, capped):
    for seed in range(50):
        start, bits, link = draw(9, kind, seed)
        cap = np.random.default_rng(seed).uniform(0.02, 0.5, 9) * BAND if capped else None
        finish_rule, share_rule = (
            allocate_bandwidth(start, bits, BAND, **link, max_bandwidth_hz=cap, rule=rule)
            for rule in ("equal-finish", "equal-share")
        )
        assert finish_rule.round_seconds <= share_rule.round_seconds * (1 + 1e-13)


def test_equal_share_gives_each_its_part_or_its_own_limit():
    allocation = allocate_bandwidth(
        [0, 1, 2], [1e6, 1e6, 1e6], 3e6, spectral_efficiency=1.0,
        max_bandwidth_hz=[np.inf, 1e6, 5e5], rule="equal-share",
    )  # fmt: skip
    np.testing.assert_array_equal(allocation.bandwidth_hz, [1e6, 1e6, 5e5])
    np.testing.assert_array_equal(allocation.finish_seconds, [1, 2, 4])
    assert allocation.round_seconds == 4


def test_a_participant_at_its_own_limit_sets_the_time_and_the_rest_of_the_band_is_left():
    # Alone at 0.5 MHz the first needs 1 + 8 = 9 s; the second then needs 4 Mb / 7 s of 5 MHz.
    allocation = finish_together(
        [1, 2], [4e6, 4e6], 5e6, spectral_efficiency=1.0, max_bandwidth_hz=[5e5, np.inf]
    )
    np.testing.assert_allclose(allocation.bandwidth_hz, [5e5, 4e6 / 7], rtol=1e-14)
    np.testing.assert_allclose(allocation.finish_seconds, [9, 9], rtol=1e-14)


@pytest.mark.parametrize("kind", KINDS)
def test_with_limits_the_round_time_is_the_least_feasible_one(kind):
    for seed in range(20):
        start, bits, link = draw(6, kind, seed)
        cap = np.random.default_rng(seed).uniform(0.05, 0.6, 6) * BAND

        def fits(t):
            # Feasible if each needs no more than its limit and all together no more than W;
            # what each needs is found by a root finder on the rate itself.
            if np.any(finish(start, bits, cap, link) > t):
                return False
            need = [
                optimize.brentq(
                    lambda b: finish(start, bits, b, link)[n] - t, 1e-9 * BAND, BAND, xtol=1e-9
                )
                for n in range(6)
            ]
            return sum(need) <= BAND

        allocation = finish_together(start, bits, BAND, **link, max_bandwidth_hz=cap)
        assert np.all(allocation.bandwidth_hz <= cap)
        assert allocation.bandwidth_hz.sum() <= BAND * (1 + 1e-14)
        assert fits(allocation.round_seconds * (1 + 1e-9))
        assert not fits(allocation.round_seconds * (1 - 1e-9))


def test_limits_that_do_not_bind_change_nothing():
    start, bits, link = draw(10, "snr_hz")
    free = finish_together(start, bits, BAND, **link)
    limited = finish_together(start, bits, BAND, **link, max_bandwidth_hz=0.99 * BAND)
    np.testing.assert_allclose(limited.bandwidth_hz, free.bandwidth_hz, rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_a_short_upload_after_a_long_computation_keeps_its_digits(kind):
    # Equal start times: the upload takes what it takes without the computation, to the last digit.
    _, bits, link = draw(5, kind)
    bits = bits * 1e-9
    late = finish_together(np.full(5, 1e9), bits, BAND, **link)
    prompt = finish_together(np.zeros(5), bits, BAND, **link)
    np.testing.assert_allclose(late.bandwidth_hz, prompt.bandwidth_hz, rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_scaling_band_and_bits_alike_changes_no_time(kind):
    start, bits, link = draw(20, kind)
    scaled = {kind: link[kind] * (8.0 if kind == "snr_hz" else 1.0)}
    one = finish_together(start, bits, BAND, **link)
    other = finish_together(start, 8 * bits, 8 * BAND, **scaled)
    np.testing.assert_allclose(other.round_seconds, one.round_seconds, rtol=1e-13)


def test_an_empty_round_takes_no_time():
    allocation = finish_together([], [], BAND, spectral_efficiency=[])
    assert allocation.round_seconds == 0
    assert allocation.bandwidth_hz.shape == allocation.finish_seconds.shape == (0,)


def test_who_has_nothing_to_send_gets_no_band():
    allocation = finish_together([1, 5], [4e6, 0], 1e6, spectral_efficiency=2.0)
    np.testing.assert_allclose(allocation.bandwidth_hz, [5e5, 0])
    np.testing.assert_allclose(allocation.finish_seconds, [5, 5])


def test_a_hopeless_shannon_link_sets_the_time_by_its_limit_without_a_warning():
    allocation = finish_together(
        [0, 0], [10, 10], BAND, snr_hz=[1e-15, 1e-15], max_bandwidth_hz=[10, np.inf]
    )
    np.testing.assert_allclose(allocation.round_seconds, 10 * np.log(2) / 1e-15, rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [100_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_large_rounds_are_solved_as_exactly_as_small_ones(count, kind):
    start, bits, link = draw(count, kind)
    allocation = finish_together(start, bits, BAND, **link)
    np.testing.assert_allclose(allocation.bandwidth_hz.sum(), BAND, rtol=1e-12)
    np.testing.assert_allclose(allocation.finish_seconds, allocation.round_seconds, rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_newton_needs_few_steps(kind, monkeypatch):
    calls = []

    def counted(*args, **link):
        calls.append(1)
        return bandwidth_for_rate(*args, **link)

    monkeypatch.setattr(bandwidth, "bandwidth_for_rate", counted)
    for seed in range(20):
        start, bits, link = draw(50, kind, seed)
        calls.clear()
        finish_together(start, bits, BAND, **link)
        assert len(calls) <= 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_bandwidth_hz": [1e6, 0]}, r"max_bandwidth_hz\[1\] is 0.*leave the participant out"),
        ({"spectral_efficiency": [0, 1]}, r"spectral_efficiency\[0\] is 0.*leave the participant"),
        ({"spectral_efficiency": [1, np.nan]}, r"spectral_efficiency\[1\] is nan"),
        ({"start_seconds": [0, np.inf]}, r"start_seconds\[1\] is inf"),
        ({"upload_bits": [0, -1]}, r"upload_bits\[1\] is -1.*0 or more"),
        ({"upload_bits": [1, 2, 3]}, r"upload_bits has shape \(3,\)"),
        ({"total_hz": 0.0}, "total_hz is 0.0; the band must be"),
        (
            {"rule": "fair"},
            "'fair' is unknown; choose 'work-conserving' or 'equal-finish'",
        ),
        ({"snr_hz": [1, 1]}, "got both"),
    ],
)
def test_what_can_never_finish_is_refused_with_its_place_and_remedy(change, message):
    good = {"start_seconds": [0, 1], "upload_bits": [1, 1], "total_hz": BAND,
            "spectral_efficiency": [1, 1]}  # fmt: skip
    allocate_bandwidth(**good)
    with pytest.raises(InputError, match=message):
        allocate_bandwidth(**{**good, **change})


def test_a_shannon_link_without_signal_is_refused():
    with pytest.raises(InputError, match=r"snr_hz\[1\] is 0, so participant 1 can never finish"):
        allocate_bandwidth([0, 1], [1, 1], BAND, snr_hz=[1e6, 0])


def test_python_files_and_command_line_divide_the_band_by_one_default():
    defaults = {
        System(bandwidth_hz=1.0, lora_rank=1).allocation,
        NetworkSection().allocation,
        inspect.signature(allocate_bandwidth).parameters["rule"].default,
    }
    assert defaults == {"work-conserving"}
