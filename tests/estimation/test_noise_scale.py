import itertools

import numpy as np
import pytest

from fedpace.core.adapter import AdapterLayout, TensorSpec, take_components
from fedpace.core.messages import ClientUpdate
from fedpace.core.record import ParticipantRecord, RoundRecord
from fedpace.core.sketch import RESIDUAL
from fedpace.estimation.noise_scale import (
    estimate_noise_scale,
    fieller_interval,
    noise_record,
    noise_scale,
)
from fedpace.estimation.noise_state import (
    initial_noise_state,
    observe,
)
from fedpace.federation.aggregation import aggregate
from planning.known_noise import KnownNoise, make_record

LAYOUT = AdapterLayout(
    rank=3,
    tensors=(
        TensorSpec("A", (3, 2), "A"),
        TensorSpec("B", (2, 3), "B"),
        TensorSpec("h", (2,), "head"),
    ),
)


def flat(adapter, head):
    return np.concatenate([v.ravel() for n, v in adapter.items() if (n == "h") == head])


def record_of(clients, weights, updates):
    """The record that the federation makes of these updates, residual sketch."""
    result = aggregate(updates, weights, LAYOUT, RESIDUAL)
    people = tuple(
        ParticipantRecord(c, len(u.components), w, 0, 0, 1.0, 1.0, 1.0, 0.0, *norms)
        for c, w, u, norms in zip(
            clients, weights, updates, result.client_squared_norms, strict=True
        )
    )
    return RoundRecord("test", 0, 0.0, 0.0, people, 0, 0, None, *result.squared_norms)


@pytest.fixture(scope="module")
def population():
    """Three clients; client n's full-rank update is one of two, each with chance 1/2."""
    rng = np.random.default_rng(3)
    possible = [
        [
            {t.name: rng.integers(-3, 4, t.shape).astype(np.float32) for t in LAYOUT.tensors}
            for _ in range(2)
        ]
        for _ in range(3)
    ]
    return possible, np.array([0.5, 0.3, 0.2]), [1, 2, 3]


def second_moments(possible, head):
    return np.array([np.mean([np.sum(flat(u, head) ** 2) for u in pair]) for pair in possible])


def truth(possible, data_weight, rank, rate, head):
    """Cross product, V_full and V, from the definitions."""
    both = np.array([[flat(u, head) for u in pair] for pair in possible])
    mean = both.mean(axis=1) * data_weight[:, None]
    gamma = second_moments(possible, head)
    gram = mean @ mean.T
    kappa = np.ones(3) if head else LAYOUT.rank / np.asarray(rank)
    squared = data_weight**2 * gamma
    return gram.sum() - np.trace(gram), squared.sum(), (squared * kappa / rate).sum()


@pytest.mark.parametrize("given", [None, np.array([0.1, 0.2, 0.7])])
def test_every_round_value_is_unbiased_over_all_participations_sketches_and_updates(
    population, given
):
    """With shares of the mean that are not those of the data, V_full is that of the data still."""
    possible, data_weight, rank = population
    share = data_weight if given is None else given
    rate = np.array([0.8, 0.5, 0.25])  # q_n times availability
    outcomes = []
    for n in range(3):
        sets = list(itertools.combinations(range(3), rank[n]))
        here = [(rate[n] / len(sets) / 2, s, u) for s in sets for u in possible[n]]
        outcomes.append([(1 - rate[n], None, None), *here])
    mean, chances = np.zeros(8), 0.0
    for outcome in itertools.product(*outcomes):
        chance = np.prod([o[0] for o in outcome])
        there = [n for n in range(3) if outcome[n][1] is not None]
        updates = [
            ClientUpdate(n, 0, c, take_components(outcome[n][2], LAYOUT, c), 0.0)
            for n in there
            for c in [np.array(outcome[n][1])]
        ]
        record = record_of(there, [share[n] / rate[n] for n in there], updates)
        mean += chance * observe(initial_noise_state(3), record, data_weight, 3, given).first
        chances += chance
    assert chances == pytest.approx(1)
    expected = [1.0, 1.0 - (share**2).sum()]
    for head in (True, False):
        cross, _, spent = truth(possible, share, rank, rate, head)
        expected = [cross, truth(possible, data_weight, rank, rate, head)[1], spent, *expected]
    np.testing.assert_allclose(mean, expected, rtol=1e-5)


def test_draws_with_replacement_leave_the_quotient_of_cross_products_and_pairs_unbiased(population):
    possible, data_weight, _ = population
    chance, mean = np.array([0.5, 0.3, 0.2]), np.zeros(8)
    for drawn in itertools.product(range(3), repeat=2):
        there, times = np.unique(drawn, return_counts=True)
        weights = data_weight[there] * times / (2 * chance[there])
        full = [possible[n][0] for n in there]
        updates = [ClientUpdate(int(n), 0, np.arange(3), u, 0.0) for n, u in zip(there, full)]
        values = observe(initial_noise_state(3), record_of(there, weights, updates), data_weight, 3)
        mean += chance[list(drawn)].prod() * values.first
    certain = [[pair[0], pair[0]] for pair in possible]
    cross, v_full, _ = truth(certain, data_weight, [3, 3, 3], chance, head=False)
    assert mean[0] / mean[7] * (1 - (data_weight**2).sum()) == pytest.approx(cross)
    assert mean[1] == pytest.approx(v_full)


def test_the_mean_squared_aggregate_is_exactly_the_cross_product_plus_v(population):
    """Hence the contract's relative rounds, (1 + ratio V/V_full)/(1 + ratio), are exact."""
    possible, data_weight, _ = population
    certain = [[pair[0], pair[0]] for pair in possible]
    rate, square = np.array([0.8, 0.5, 0.25]), 0.0
    for joined in itertools.product([0, 1], repeat=3):
        chance = np.prod(np.where(joined, rate, 1 - rate))
        total = sum(
            data_weight[n] * joined[n] / rate[n] * flat(possible[n][0], False) for n in range(3)
        )
        square += chance * np.sum(total**2)
    cross, v_full, v = truth(certain, data_weight, [3, 3, 3], rate, head=False)
    full = np.sum(sum(a * flat(p[0], False) for a, p in zip(data_weight, possible)) ** 2)
    ratio = v_full / cross
    assert square == pytest.approx(cross + v)
    assert square / full == pytest.approx((1 + ratio * v / v_full) / (1 + ratio))


def test_the_residual_sketch_shows_the_full_rank_second_moment_to_first_order_in_the_rate():
    """Local gradient descent on a LoRA regression, all index sets of 2 of 4 components."""
    rng = np.random.default_rng(0)
    b, a, target = rng.normal(size=(5, 4)), rng.normal(size=(4, 3)), rng.normal(size=(5, 3))

    def squared_norm(components, rate):
        b1, a1, mask = b.copy(), a.copy(), np.zeros(4)
        mask[list(components)] = 1.0
        for _ in range(3):
            miss = b1 @ a1 - target
            b1, a1 = b1 - rate * miss @ a1.T * mask, a1 - rate * mask[:, None] * (b1.T @ miss)
        return np.sum((b1 - b) ** 2) + np.sum((a1 - a) ** 2)

    def error(rate):
        kappa = 2.0
        seen = [kappa**2 * squared_norm(c, rate) for c in itertools.combinations(range(4), 2)]
        return abs(np.mean(seen) / kappa / squared_norm(range(4), rate) - 1)

    assert error(1e-4) < 2e-3
    assert error(1e-4) == pytest.approx(error(2e-4) / 2, rel=0.05)


def test_on_quadratics_the_estimate_is_what_local_sgd_has_in_closed_form():
    """f_n(x) = (x - c_n)' D (x - c_n) / 2 with gradient noise; H steps of SGD from one x."""
    rng, steps, rate, sigma = np.random.default_rng(14), 4, 0.2, 1.5
    curvature, x = np.linspace(0.1, 1.0, 10), np.zeros(10)
    centres = 2.0 + 2.0 * rng.normal(size=(20, 10))
    weight = rng.dirichlet(np.full(20, 5.0))
    q = np.clip(rng.random(20), 0.3, 0.9)

    shrink = 1 - rate * curvature
    mean = (1 - shrink**steps) * (centres - x)
    scatter = sum((rate * sigma) ** 2 * shrink ** (2 * j) for j in range(steps)).sum()
    gram = (weight[:, None] * mean) @ (weight[:, None] * mean).T
    cross = gram.sum() - np.trace(gram)
    gamma = (mean**2).sum(axis=1) + scatter

    records = []
    for index in range(400):
        joined = np.flatnonzero(rng.random(20) < q)
        here = np.tile(x, (len(joined), 1))
        for _ in range(steps):
            noise = sigma * rng.normal(size=here.shape)
            here -= rate * (curvature * (here - centres[joined]) + noise)
        records.append(make_record(index, joined, weight[joined] / q[joined], here - x))
    seen = estimate_noise_scale(records, weight, 4, forget=1.0)
    assert seen.v_full == pytest.approx(weight**2 @ gamma, rel=0.05)
    assert seen.cross_product == pytest.approx(cross, rel=0.05)
    assert seen.ratio_interval[0] < (weight**2 @ gamma) / cross < seen.ratio_interval[1]
    np.testing.assert_allclose(seen.update_second_moment, gamma, rtol=0.2)


def test_with_full_participation_and_no_noise_the_answer_is_exact_and_certain():
    world = KnownNoise(count=8, noise=0.0)
    everyone = np.ones(8)
    records = list(world.rounds(everyone, 12, np.random.default_rng(0)))
    seen = estimate_noise_scale(records, world.data_weight, world.rank)
    assert seen.ratio == pytest.approx(world.ratio)
    assert seen.v_full == pytest.approx(world.v_full)
    assert seen.cross_product == pytest.approx(world.cross_product)
    np.testing.assert_allclose(seen.ratio_interval, world.ratio, rtol=1e-6)
    np.testing.assert_allclose(seen.update_second_moment, world.second_moment)
    assert seen.verdict == "sufficient"


def test_a_long_stationary_run_finds_the_known_noise_scale_whatever_the_plan():
    world, rng = KnownNoise(apart=3.0, noise=3.0), np.random.default_rng(1)
    for q in (np.full(50, 0.2), np.clip(8 * world.data_weight, 0.02, 1.0)):
        records = list(world.rounds(q, 400, rng))
        seen = estimate_noise_scale(records, world.data_weight, world.rank, forget=1.0)
        assert seen.v_full == pytest.approx(world.v_full, rel=0.03)
        assert seen.cross_product == pytest.approx(world.cross_product, rel=0.08)
        assert seen.ratio == pytest.approx(world.ratio, rel=0.08)
        v = (world.data_weight**2 * world.second_moment / q).sum()
        assert seen.noise_fraction == pytest.approx(v / (world.cross_product + v), abs=0.02)
        low, high = seen.squared_norm_bounds
        u = world.data_weight @ world.mean
        assert low < u @ u < high
        expected = (world.data_weight**2 * seen.update_second_moment).sum()
        assert seen.v_full == pytest.approx(expected)


@pytest.mark.slow
@pytest.mark.parametrize(("participants", "forget"), [(10, 1.0), (10, 0.95), (25, 1.0)])
def test_the_interval_covers_the_known_ratio_about_as_often_as_it_says(participants, forget):
    world, rng = KnownNoise(apart=3.0, noise=3.0), np.random.default_rng(2)
    q = np.full(50, participants / 50)
    covered = 0
    for _ in range(400):
        records = list(world.rounds(q, 30, rng))
        seen = estimate_noise_scale(records, world.data_weight, world.rank, forget=forget)
        covered += seen.ratio_interval[0] <= world.ratio <= seen.ratio_interval[1]
    assert 0.90 <= covered / 400 <= 0.985


def test_the_interval_narrows_as_rounds_come_in():
    world, rng = KnownNoise(apart=3.0, noise=3.0), np.random.default_rng(4)
    records = list(world.rounds(np.full(50, 0.2), 250, rng))
    widths = []
    for count in (10, 50, 250):
        seen = estimate_noise_scale(records[:count], world.data_weight, 4, forget=1.0)
        widths.append(seen.ratio_interval[1] - seen.ratio_interval[0])
    assert widths[0] > widths[1] > widths[2]
    assert widths[0] > 3 * widths[2]  # as 1 / sqrt(rounds), 5


def test_shrinkage_errs_less_than_each_clients_own_mean_and_than_the_common_mean():
    world, rng = KnownNoise(count=200, size=20, noise=2.0, spread=0.1), np.random.default_rng(5)
    q = np.full(200, 0.1)
    records = list(world.rounds(q, 30, rng))
    seen = estimate_noise_scale(records, world.data_weight, world.rank, forget=1.0)
    raw = {n: [] for n in range(200)}
    for record in records:
        for p in record.participants:
            raw[p.client].append(p.lora_squared_norm)
    own = np.array([np.mean(v) if v else np.nan for v in raw.values()])
    common = np.full(200, np.nanmean(own))

    def error(gamma):
        shape, true = gamma / gamma.mean(), world.second_moment / world.second_moment.mean()
        return np.sqrt(np.mean((shape - true) ** 2))

    own = np.where(np.isnan(own), common, own)
    assert error(seen.update_second_moment) < 0.9 * error(own)
    assert error(seen.update_second_moment) < 0.9 * error(common)


def test_an_unseen_client_gets_the_population_mean_and_equal_clients_nearly_the_same_value():
    world, rng = KnownNoise(apart=0.0, spread=0.0), np.random.default_rng(6)
    q = np.full(50, 0.3)
    q[7] = 1e-12
    records = list(world.rounds(q, 40, rng))
    gamma = estimate_noise_scale(records, world.data_weight, world.rank).update_second_moment
    others = np.delete(gamma, 7)
    assert others.min() <= gamma[7] <= others.max() * 1.001
    assert others.std() / others.mean() < 0.02


def test_client_values_are_relative_to_their_time_so_that_shrinking_updates_do_not_mislead():
    world = KnownNoise(noise=0.0)
    rng, records = np.random.default_rng(7), []
    for index in range(160):  # ||Delta||^2 shrinks a hundredfold, client 3 is seen only early
        q = np.full(50, 0.3)
        q[3] = 0.9 if index < 30 else 1e-12
        records += world.rounds(q, 1, rng, scale=10 ** (-index / 160))
    gamma = estimate_noise_scale(records, world.data_weight, world.rank).update_second_moment
    found = gamma[3] / gamma.mean()
    assert found == pytest.approx(world.second_moment[3] / world.second_moment.mean(), rel=0.25)


def test_forgetting_follows_a_noise_scale_that_grows():
    world, rng = KnownNoise(apart=1.0, noise=3.0), np.random.default_rng(8)
    q = np.full(50, 0.3)
    early = list(world.rounds(q, 100, rng, noise=0.0))
    late = list(world.rounds(q, 100, rng))
    follows, remembers = (
        estimate_noise_scale([*early, *late], world.data_weight, 4, forget=f).ratio
        for f in (0.95, 1.0)
    )
    assert follows == pytest.approx(world.ratio, rel=0.15)
    assert remembers < 0.75 * world.ratio


def test_head_and_lora_add_up_and_the_head_is_never_divided_by_kappa():
    rng = np.random.default_rng(9)
    weight = np.array([0.5, 0.5])
    records = [
        make_record(i, [0, 1], weight, 1 + 0.1 * rng.normal(size=(2, 6)), rank=2, head=2)
        for i in range(20)
    ]
    parts = ("lora", "head", "all")
    lora, head, both = (estimate_noise_scale(records, weight, 4, part=p) for p in parts)
    assert both.v_full == pytest.approx(lora.v_full + head.v_full)
    assert both.cross_product == pytest.approx(lora.cross_product + head.cross_product)
    np.testing.assert_allclose(
        both.update_second_moment, lora.update_second_moment + head.update_second_moment
    )
    assert head.v_full == pytest.approx(2 * 0.25 * 2, rel=0.1)  # sum a^2 ||(1, 1)||^2
    assert lora.v_full == pytest.approx(2 * 0.25 * 4 / 2, rel=0.1)  # and kappa = 2
    state = initial_noise_state(2)
    for record in records:
        state = observe(state, record, weight, 4)
    assert noise_record(state, weight)["head_ratio"] == noise_scale(state, weight, "head").ratio
    assert noise_record(state, weight)["all_rounds_observed"] == 20


def test_too_few_rounds_are_called_so_in_words():
    world, rng = KnownNoise(), np.random.default_rng(10)
    records = list(world.rounds(np.full(50, 0.2), 3, rng))
    seen = estimate_noise_scale(records, world.data_weight, world.rank)
    assert not seen.sufficient
    assert seen.verdict == "only 3 rounds observed, 10 are the least"
    nothing = estimate_noise_scale([], world.data_weight, world.rank)
    assert nothing.verdict.startswith("only 0 rounds")
    assert np.isnan(nothing.ratio) and nothing.ratio_interval == (0, np.inf)


def test_many_rounds_that_say_little_are_called_too_few():
    world, rng = KnownNoise(size=5, apart=3.0, noise=3.0), np.random.default_rng(11)
    records = list(world.rounds(np.full(50, 0.06), 20, rng))
    seen = estimate_noise_scale(records, world.data_weight, world.rank)
    assert "the noise ratio is only known to be within" in seen.verdict
    alone = [make_record(i, [i % 2], [1.0], [[1.0, 2.0]]) for i in range(30)]
    assert estimate_noise_scale(alone, [0.5, 0.5], 4).verdict == "no round had two participants"


def test_updates_that_cancel_have_an_infinite_ratio():
    weight = np.full(4, 0.25)
    updates = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    records = [make_record(i, range(4), weight, updates) for i in range(12)]
    seen = estimate_noise_scale(records, weight, 4)
    assert seen.ratio == np.inf
    assert seen.noise_fraction == 1.0
    assert seen.sufficient  # that noise is all there is, is known for sure


def test_a_diverged_round_is_left_out_and_said():
    world, rng = KnownNoise(), np.random.default_rng(12)
    records = list(world.rounds(np.full(50, 0.2), 5, rng))
    bad = make_record(5, [0, 1], [1.0, 1.0], np.full((2, 3), np.inf))
    with np.errstate(invalid="ignore"):
        seen = estimate_noise_scale([*records, bad], world.data_weight, world.rank)
    assert seen.rounds_observed == 5
    assert "1 rounds with norms that are not finite" in seen.verdict


def test_fiellers_interval_is_where_the_difference_is_not_significant():
    low, high = fieller_interval(2.0, 4.0, 0.3, 0.5, 0.1)
    for g in (low, high):
        assert (2 - 4 * g) ** 2 == pytest.approx(0.3 - 2 * g * 0.1 + g**2 * 0.5)
    assert low < 0.5 < high
    assert fieller_interval(1.0, 0.1, 0.1, 0.1) == (-np.inf, np.inf)
