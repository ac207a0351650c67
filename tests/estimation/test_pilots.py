import numpy as np
import pytest

from fedpace.core.errors import InputError
from fedpace.core.plan import Decision
from fedpace.core.profile import Clients, System
from fedpace.core.sketch import RESIDUAL
from fedpace.estimation.pilots import estimate_from_pilots, relative_variance, rounds_to_levels
from fedpace.planning.solver.objective import relative_rounds

LEVELS = np.linspace(0.8, 3.0, 8)


def curve(ratio, variance, rng=None, noise=0.0, run_spread=0.0):
    """A loss that falls exponentially, slower by 1 + ratio x, as the model says."""
    scale = 20 * (1 + ratio * variance)
    if rng is not None:
        scale *= np.exp(run_spread * rng.normal())
    rounds = np.arange(int(5 * scale))
    scatter = 0.0 if rng is None else noise * rng.normal(size=len(rounds))
    return 0.3 + 4 * np.exp(-rounds / scale) + scatter


@pytest.mark.parametrize("ratio", [0.05, 0.5, 5.0])
@pytest.mark.parametrize("variance", [(10.0, 6.0), (6.0, 10.0)])
def test_noiseless_pilots_give_the_ratio_at_every_level_and_on_average(ratio, variance):
    curves = [[curve(ratio, x)] for x in variance]
    found = estimate_from_pilots(tuple(curves), variance, LEVELS)
    np.testing.assert_allclose(found.ratio_by_level, ratio, rtol=0.05)
    assert found.ratio == pytest.approx(ratio, rel=0.02)
    assert found.averaged_ratio == pytest.approx(ratio, rel=0.02)
    quotient = found.rounds[0] / found.rounds[1]
    expected = (1 + ratio * variance[0]) / (1 + ratio * variance[1])
    np.testing.assert_allclose(quotient, expected, rtol=0.01)


def test_repeated_noisy_pilots_cover_the_truth_and_a_single_pair_promises_nothing():
    ratio, variance, covered = 0.5, (10.0, 6.0), 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        curves = tuple([curve(ratio, x, rng, 0.05, 0.05) for _ in range(3)] for x in variance)
        found = estimate_from_pilots(curves, variance, LEVELS)
        covered += found.ratio_interval[0] <= ratio <= found.ratio_interval[1]
    assert covered >= 90
    alone = estimate_from_pilots((curves[0][:1], curves[1][:1]), variance, LEVELS)
    assert alone.ratio_interval == (0, np.inf)
    assert not alone.sufficient and "one pilot of a kind" in alone.verdict


def test_pilots_whose_order_noise_turned_round_say_so():
    curves = tuple([curve(0.5, x), curve(0.5, x)] for x in (6.0, 10.0))
    found = estimate_from_pilots(curves, (10.0, 6.0), LEVELS)
    assert found.ratio < 0
    assert "swamps" in found.verdict


def test_time_above_a_level_of_a_noisy_curve_is_unbiased_where_the_first_crossing_is_early():
    rng, first, above = np.random.default_rng(0), [], []
    for _ in range(200):
        noisy = np.linspace(2.0, 0.0, 201) + 0.1 * rng.normal(size=201)
        first.append(np.argmax(noisy <= 1.0))
        above.append(rounds_to_levels(noisy, [1.0])[0])
    assert np.mean(above) == pytest.approx(100, abs=1.0)
    assert np.mean(first) < 95


def test_a_curve_that_stands_still_above_a_level_is_above_it():
    np.testing.assert_allclose(rounds_to_levels([2.0, 2.0, 1.0], [1.75, 1.5]), [1.25, 1.5])


def test_the_variance_of_a_plan_is_the_one_in_the_relative_rounds():
    """The planner's own rounds, taken apart: R (1 + ratio) = 1 + ratio x at sketch power 0."""
    rng = np.random.default_rng(1)
    clients = Clients.from_columns(
        data_weight=rng.random(6), step_seconds=np.ones(6), spectral_efficiency=np.ones(6),
        availability=rng.uniform(0.5, 1.0, 6), update_second_moment=rng.random(6) + 0.5,
    )  # fmt: skip
    system = System(bandwidth_hz=1e6, lora_rank=8, noise_ratio=0.7, sketch=RESIDUAL)
    chance, rank = rng.dirichlet(np.ones(6)), rng.integers(1, 9, 6)
    for draws in (None, 3):
        decision = Decision(chance, rank, draws)
        rounds = relative_rounds(chance, rank.astype(float), clients, system, draws)
        assert rounds * 1.7 == pytest.approx(1 + 0.7 * relative_variance(decision, clients, 8))


def test_useless_pilots_are_refused_with_the_remedy():
    good = [curve(0.5, 10.0)]
    with pytest.raises(InputError, match="same relative variance"):
        estimate_from_pilots((good, good), (10.0, 10.0), LEVELS)
    with pytest.raises(InputError, match="curve 0 of pilot 1 ends above loss level 0.8"):
        estimate_from_pilots((good, [[4.0, 3.0, 2.0]]), (10.0, 6.0), LEVELS)
