"""Round time as a distribution: cases with a known answer."""

import numpy as np
import pytest
from scipy.stats import binom

from fedpace.core.errors import InputError
from fedpace.core.plan import Decision
from fedpace.core.profile import Clients, System
from fedpace.planning.round_time.distribution import (
    enumerate_round_seconds,
    mean_and_gradient,
    quantile_and_gradient,
    round_time,
)
from fedpace.wireless.bandwidth import allocate_bandwidth
from fedpace.wireless.latency import start_seconds, upload_bits

SYSTEM = System(
    bandwidth_hz=1e6, lora_rank=16, bits_per_rank=1e5, overhead_seconds=0.3,
    allocation="equal-finish",
)  # fmt: skip


def population(count, seed=0, *, shannon=False, limits=False, spread=10.0, **columns):
    rng = np.random.default_rng(seed)
    link = "snr_hz" if shannon else "spectral_efficiency"
    scale = 3e6 if shannon else 1.0
    columns = {
        "data_weight": rng.lognormal(0, 1, count),
        "step_seconds": np.exp(rng.uniform(0, np.log(spread), count)) / 5,
        "step_seconds_per_rank": rng.uniform(0, 0.01, count),
        link: scale * np.exp(rng.uniform(0, np.log(spread), count)),
        **({"max_bandwidth_hz": 1e6 * np.exp(rng.uniform(-2, 0.5, count))} if limits else {}),
        **columns,
    }
    return Clients.from_columns(**columns)


def planned(clients, q, rank=8, draws=None):
    count = len(clients)
    ranks = np.broadcast_to(np.asarray(rank), (count,)).copy()
    chance = np.broadcast_to(np.asarray(q, dtype=float), (count,)).copy()
    return Decision(chance, ranks, draws)


def test_one_client_is_there_or_not():
    clients = population(1, step_seconds=[0.2], step_seconds_per_rank=[0.0],
                         spectral_efficiency=[2.0])  # fmt: skip
    alone = 0.3 + 1.0 + 8e5 / 2e6  # overhead, 5 steps, upload
    law = round_time(planned(clients, 0.4), clients, SYSTEM)
    assert law.mean == pytest.approx(0.3 + 0.4 * 1.4)
    assert law.quantile(0.59) == 0.3
    assert law.quantile(0.61) == pytest.approx(alone)
    np.testing.assert_allclose(law.cdf([0.29, 0.3, 1.6, alone + 1e-9]), [0, 0.6, 0.6, 1])
    mean, _, _ = mean_and_gradient([0.4], [8], clients, SYSTEM)
    assert mean == pytest.approx(0.3 + 0.4 * 1.4, rel=1e-3)


@pytest.mark.parametrize("q", [0.01, 0.1, 0.5, 0.97])
@pytest.mark.parametrize("count", [5, 40, 400])
def test_identical_clients_take_a_binomial_number_of_uploads(count, q):
    same = np.ones(count)
    clients = population(count, step_seconds=same, step_seconds_per_rank=0 * same,
                         spectral_efficiency=same)  # fmt: skip
    number = np.arange(count + 1)
    seconds = 0.3 + np.where(number > 0, 5 + 0.8 * number, 0)
    law = round_time(planned(clients, q), clients, SYSTEM)
    assert law.mean == pytest.approx(binom.pmf(number, count, q) @ seconds, rel=1e-3)
    assert law.quantile(0.95) == pytest.approx(seconds[int(binom.ppf(0.95, count, q))], rel=0.03)


@pytest.mark.parametrize("shannon", [False, True])
@pytest.mark.parametrize("count", [3, 30, 200])
def test_full_participation_takes_the_time_of_the_equal_finish(count, shannon):
    clients = population(count, shannon=shannon, limits=True)
    rank = np.full(count, 8)
    link = "snr_hz" if shannon else "spectral_efficiency"
    together = 0.3 + allocate_bandwidth(
        start_seconds(clients, SYSTEM, rank), upload_bits(SYSTEM, rank), SYSTEM.bandwidth_hz,
        max_bandwidth_hz=clients.max_bandwidth_hz, rule="equal-finish",
        **{link: getattr(clients, link)},
    ).round_seconds  # fmt: skip
    law = round_time(planned(clients, 1.0), clients, SYSTEM)
    assert law.mean == pytest.approx(together, rel=1e-12)
    assert law.quantile(0.01) == law.quantile(0.99) == pytest.approx(together, rel=1e-12)
    assert law.cdf(0.999 * together) == 0 and law.cdf(1.001 * together) == 1
    mean, _, _ = mean_and_gradient(np.ones(count), rank, clients, SYSTEM)
    assert mean == pytest.approx(together, rel=5e-3)


@pytest.mark.parametrize("count", [2, 6, 12])
def test_a_few_clients_are_listed_exactly(count):
    clients = population(count, shannon=True, limits=True)
    plan = planned(clients, np.random.default_rng(1).uniform(0.05, 1, count))
    seconds, chance = enumerate_round_seconds(plan, clients, SYSTEM)
    law = round_time(plan, clients, SYSTEM)
    assert law.mean == pytest.approx(seconds @ chance, rel=1e-12)
    for s in np.random.default_rng(2).choice(seconds, 20):
        s *= 1 + 1e-12
        assert law.cdf(s) == pytest.approx(chance[seconds <= s].sum(), abs=1e-9)
    order = np.argsort(seconds)
    for p in (0.05, 0.5, 0.95):
        first = np.argmax(np.cumsum(chance[order]) >= p)
        assert law.quantile(p) == pytest.approx(seconds[order][first])


@pytest.mark.parametrize("kind", [{}, {"shannon": True}, {"limits": True}, {"spread": 100.0}])
@pytest.mark.parametrize("q", [0.03, 0.2, 0.6, 0.95])
def test_beyond_a_few_clients_the_law_is_close_to_the_list(kind, q):
    clients = population(14, 3, **kind)
    plan = planned(clients, q * np.random.default_rng(1).uniform(0.5, 1, 14))
    seconds, chance = enumerate_round_seconds(plan, clients, SYSTEM)
    law = round_time(plan, clients, SYSTEM)
    assert law.mean == pytest.approx(seconds @ chance, rel=5e-3)
    assert law.cdf(SYSTEM.overhead_seconds) == pytest.approx(chance[0], abs=1e-9)
    for p in (0.5, 0.95):
        # Within 3 %, or where the exact distribution is flat, at a level 1 % away.
        order = np.argsort(seconds)
        below = np.cumsum(chance[order])
        low, high = (seconds[order][np.argmax(below >= p + side)] for side in (-0.01, 0.01))
        assert 0.97 * low <= law.quantile(p) <= 1.03 * high


@pytest.mark.parametrize("count", [7, 50])
def test_the_distribution_rises_from_the_empty_round_to_one(count):
    clients = population(count)
    q = np.full(count, 1.5 / count)
    law = round_time(planned(clients, q), clients, SYSTEM)
    s = np.linspace(0, 30, 5001)
    value = law.cdf(s)
    assert np.all(np.diff(value) >= 0)
    assert np.all(value[s < 0.3] == 0)
    assert law.cdf(0.3) == pytest.approx((1 - q[0]) ** count, abs=1e-9)
    assert law.cdf(1e6) == 1
    levels = np.linspace(0.3, 0.999, 50)
    quantiles = [law.quantile(p) for p in levels]
    assert np.all(np.diff(quantiles) >= 0)
    assert np.all(law.cdf(np.array(quantiles) * (1 + 1e-9)) >= levels - 1e-9)
    # The mean is the area above the distribution.
    s = np.linspace(0, law.seconds[-1], 400001)
    assert np.trapezoid(1 - law.cdf(s), s) == pytest.approx(law.mean, rel=1e-3)


def test_a_client_at_its_own_limit_makes_the_round_wait_for_it():
    """The slow one needs 8 s at its limit; the other 19 fit in beside it."""
    count = 20
    limit = np.full(count, np.inf)
    limit[0] = 1e5
    same = np.ones(count)
    clients = population(count, step_seconds=same / 5, step_seconds_per_rank=0 * same,
                         spectral_efficiency=10 * same, max_bandwidth_hz=limit)  # fmt: skip
    q = np.full(count, 0.5)
    law = round_time(planned(clients, q), clients, SYSTEM)
    waiting = 0.3 + 1 + 8e5 / 1e6
    assert law.quantile(0.45) == pytest.approx(waiting, rel=0.02)  # a jump from 0.34 to 0.59
    others = 0.3 + 1 + 0.08 * np.arange(20)
    chance = binom.pmf(np.arange(20), 19, 0.5)
    expected = 0.5 * (chance @ np.where(np.arange(20) > 0, others, 0.3))
    expected += 0.5 * (chance @ np.maximum(waiting, 0.3 + 1 + 0.08 * np.arange(1, 21)))
    assert law.mean == pytest.approx(expected, rel=5e-3)


def test_absent_clients_count_as_not_sampled():
    clients = population(30, availability=np.full(30, 0.5))
    there = population(30)
    law = round_time(planned(clients, 0.4), clients, SYSTEM)
    assert law.mean == round_time(planned(there, 0.2), there, SYSTEM).mean
    first = mean_and_gradient(np.full(30, 0.4), np.full(30, 8), clients, SYSTEM)
    second = mean_and_gradient(np.full(30, 0.2), np.full(30, 8), there, SYSTEM)
    assert first[0] == second[0]
    np.testing.assert_allclose(first[1], 0.5 * second[1])
    np.testing.assert_allclose(first[2], second[2])


def test_draws_with_replacement_are_taken_for_independent():
    clients = population(30)
    share = clients.data_weight
    drawn = round_time(planned(clients, share, draws=6), clients, SYSTEM)
    alone = round_time(planned(clients, 1 - (1 - share) ** 6), clients, SYSTEM)
    assert drawn.mean == pytest.approx(alone.mean, rel=1e-12)


def test_the_quantile_for_planners_is_that_of_the_distribution():
    clients = population(60)
    q, rank = np.full(60, 0.2), np.full(60, 8)
    law = round_time(planned(clients, q), clients, SYSTEM)
    for p in (0.3, 0.5, 0.95):
        seconds, _, _ = quantile_and_gradient(p, q, rank, clients, SYSTEM)
        assert seconds == pytest.approx(law.quantile(p), rel=0.02)


@pytest.mark.parametrize("count", [20, 2000])
def test_the_fast_mean_is_close_to_that_of_the_distribution(count):
    clients = population(count)
    q = np.full(count, 5 / count)
    law = round_time(planned(clients, q), clients, SYSTEM)
    mean, _, _ = mean_and_gradient(q, np.full(count, 8), clients, SYSTEM)
    assert mean == pytest.approx(law.mean, rel=3e-3)


def test_wrong_input_is_named():
    clients = population(3, client_id=["a", "b", "c"])
    with pytest.raises(InputError, match="sampling_probability of client 'b' is 0"):
        mean_and_gradient([0.5, 0.0, 0.5], [8, 8, 8], clients, SYSTEM)
    with pytest.raises(InputError, match="sketch_rank of client 'c' is -1"):
        mean_and_gradient([0.5, 0.5, 0.5], [8, 8, -1], clients, SYSTEM)
    with pytest.raises(InputError, match="there are 3 clients"):
        mean_and_gradient([0.5, 0.5], [8, 8], clients, SYSTEM)
    with pytest.raises(InputError, match="quantile is 1"):
        quantile_and_gradient(1, [0.5] * 3, [8] * 3, clients, SYSTEM)
    with pytest.raises(InputError, match="quantile is 0"):
        round_time(planned(clients, 0.5), clients, SYSTEM).quantile(0)
