"""Published methods of aggregation, each against an identity or a case computed another way."""

from itertools import combinations

import numpy as np
import pytest

from federation.toy import LAYOUT, blank, context, random_adapter
from fedpace.core.adapter import MERGED, AdapterLayout, TensorSpec, take_components
from fedpace.core.errors import InputError
from fedpace.core.messages import ClientUpdate
from fedpace.core.sketch import RESIDUAL, SCALED
from fedpace.federation.aggregation import Returned
from fedpace.federation.methods.fedit import fedit
from fedpace.federation.methods.ffa_lora import ffa_lora
from fedpace.federation.methods.flexlora import flexlora, leading
from fedpace.federation.methods.flora import flora
from fedpace.federation.methods.hetlora import hetlora
from fedpace.federation.methods.sketched import sketched
from fedpace.federation.server_optimizer import server_sgd

MODULES = (("one.A", "one.B"), ("two.A", "two.B"))
WEIGHT = np.array([0.5, 0.3, 0.2])
EVERY = {"fedit": fedit, "ffa-lora": ffa_lora, "hetlora": hetlora, "flexlora": flexlora,
         "flora": flora}  # fmt: skip


def trained(client, rank, start, layout=LAYOUT):
    """The update of a client with the first `rank` components, to a random end."""
    end = random_adapter(100 + client)
    step = {name: end[name] - start[name] for name in end}
    return ClientUpdate(
        client, 0, np.arange(rank), take_components(step, layout, np.arange(rank)), 0.0
    )


def back(updates, start):
    share = [float(WEIGHT[u.client]) for u in updates]
    return Returned(updates, start, share, [weight / 0.5 for weight in share])


def new_adapter(aggregation, updates, adapter, start=None):
    """The global adapter after the published server step."""
    result, _ = aggregation.aggregate(adapter, {}, back(updates, start or adapter))
    return server_sgd(1.0).step(adapter, result.update, {})[0]


def product(adapter, a, b, rank=4):
    return adapter[b][:, :rank].astype(np.float64) @ adapter[a][:rank]


def test_fedit_at_full_participation_and_full_rank_is_the_weighted_mean_of_a_and_of_b():
    start = random_adapter(0)
    after = new_adapter(fedit(context()), [trained(n, 4, start) for n in range(3)], start)
    for name in after:
        mean = sum(WEIGHT[n] * random_adapter(100 + n)[name] for n in range(3))
        np.testing.assert_allclose(after[name], mean, atol=1e-6)


def test_fedit_divides_by_the_weight_of_those_who_came():
    start = random_adapter(0)
    after = new_adapter(fedit(context()), [trained(n, 4, start) for n in (0, 2)], start)
    mean = (0.5 * random_adapter(100)["one.A"] + 0.2 * random_adapter(102)["one.A"]) / 0.7
    np.testing.assert_allclose(after["one.A"], mean, atol=1e-6)


def test_ffa_lora_leaves_a_alone_and_averages_b_and_the_head():
    start, method = random_adapter(0), ffa_lora(context())
    sent = LAYOUT.only(method.trained)
    after = new_adapter(method, [trained(n, 4, start, sent) for n in range(3)], start)
    for t in LAYOUT.tensors:
        mean = sum(WEIGHT[n] * random_adapter(100 + n)[t.name] for n in range(3))
        expected = start[t.name] if t.role == "A" else mean
        np.testing.assert_allclose(after[t.name], expected, atol=1e-6)
    # What it is for: the product of the mean is the mean of the products.
    products = [random_adapter(100 + n)["one.B"] @ start["one.A"] for n in range(3)]
    np.testing.assert_allclose(
        product(after, "one.A", "one.B"), np.tensordot(WEIGHT, products, 1), atol=1e-5
    )


def test_ffa_lora_refuses_an_a_that_starts_at_zero():
    with pytest.raises(InputError, match=r"one\.A starts at zero.*target_modules"):
        ffa_lora(context()).begin(blank())


def of_equal_product_norm(adapter):
    norm = np.sqrt(sum(np.sum(product(adapter, a, b) ** 2) for a, b in MODULES))
    scaled = {name: value / np.sqrt(norm) for name, value in adapter.items()}
    return {name: value.astype(np.float32) for name, value in scaled.items()}


def test_hetlora_at_equal_ranks_norms_and_data_is_fedit():
    start = random_adapter(0)
    every = range(4)
    updates = []
    for n in range(2):
        end = of_equal_product_norm(random_adapter(50 + n))
        step = {name: end[name] - start[name] for name in end}
        updates.append(ClientUpdate(n, 0, np.arange(4), take_components(step, LAYOUT, every), 0.0))
    equal = Returned(updates, start, [0.5, 0.5], [1.0, 1.0])
    ours, _ = hetlora(context()).aggregate(start, {}, equal)
    theirs, _ = fedit(context()).aggregate(start, {}, equal)
    for name in theirs.update:
        np.testing.assert_allclose(ours.update[name], theirs.update[name], atol=1e-5)
    np.testing.assert_allclose(ours.weights, [0.5, 0.5], rtol=1e-5)


def test_hetlora_pads_with_zeros_and_weighs_by_the_norm_of_the_product():
    start, ranks = random_adapter(0), (4, 1, 2)
    after = new_adapter(hetlora(context()), [trained(n, ranks[n], start) for n in range(3)], start)
    norm = [
        np.sqrt(sum(np.sum(product(random_adapter(100 + n), a, b, k) ** 2) for a, b in MODULES))
        for n, k in enumerate(ranks)
    ]
    for a, b in MODULES:
        for name, axis in ((a, 0), (b, 1)):
            expected = 0.0
            for n, k in enumerate(ranks):
                padded = np.swapaxes(random_adapter(100 + n)[name].copy(), 0, axis)
                padded[k:] = 0
                expected = expected + norm[n] / sum(norm) * np.swapaxes(padded, 0, axis)
            np.testing.assert_allclose(after[name], expected, atol=1e-5)
    head = sum(WEIGHT[n] * random_adapter(100 + n)["head"] for n in range(3))
    np.testing.assert_allclose(after["head"], head, atol=1e-6)


@pytest.mark.parametrize("ranks", [(1, 1, 1), (1, 2, 1)])
def test_flexloras_product_is_the_weighted_sum_of_products_where_the_rank_suffices(ranks):
    start = random_adapter(0)
    after = new_adapter(flexlora(context()), [trained(n, ranks[n], start) for n in range(3)], start)
    for a, b in MODULES:
        expected = sum(
            WEIGHT[n] * product(random_adapter(100 + n), a, b, ranks[n]) for n in range(3)
        )
        np.testing.assert_allclose(product(after, a, b), expected, atol=1e-5)


def test_flexlora_gives_a_client_the_best_approximation_of_its_rank():
    start = random_adapter(0)
    after = new_adapter(flexlora(context()), [trained(n, 4, start) for n in range(3)], start)
    full = sum(WEIGHT[n] * product(random_adapter(100 + n), "one.A", "one.B") for n in range(3))
    rest = np.linalg.svd(full)[1]
    for k in (1, 2, 3):  # Eckart-Young: no product of rank k is nearer
        error = np.linalg.norm(full - product(after, "one.A", "one.B", k))
        assert error == pytest.approx(np.sqrt(np.sum(rest[k:] ** 2)), abs=1e-5)


def test_components_that_flexlora_does_not_need_can_still_be_trained():
    start = random_adapter(0)
    after = new_adapter(flexlora(context()), [trained(0, 2, start)], start)
    np.testing.assert_allclose(after["one.A"][2:], start["one.A"][2:], atol=1e-6)
    np.testing.assert_allclose(after["one.B"][:, 2:], 0, atol=1e-6)


@pytest.mark.parametrize("inner", [3, 10, 30])
def test_the_svd_through_qr_is_that_of_the_product(inner):
    rng = np.random.default_rng(inner)
    columns = rng.normal(size=(20, inner)).astype(np.float32)
    rows = rng.normal(size=(inner, 25)).astype(np.float32)
    u, s, vt = leading(columns, rows, 5)
    expected = np.linalg.svd(columns.astype(np.float64) @ rows)[1]
    np.testing.assert_allclose(s, expected[: len(s)], rtol=1e-5)
    assert len(s) == min(5, inner)
    np.testing.assert_allclose(u.T @ (columns @ rows) @ vt.T, np.diag(s), atol=1e-4)


@pytest.mark.parametrize("value", [np.inf, np.nan])
@pytest.mark.parametrize("inner", [3, 30])
def test_a_run_that_diverged_stays_so_without_a_crash(value, inner):
    columns, rows = np.ones((20, inner), np.float32), np.ones((inner, 25), np.float32)
    columns[3, 1] = value
    u, s, vt = leading(columns, rows, 5)
    m = min(5, inner)
    assert (u.shape, s.shape, vt.shape) == ((20, m), (m,), (m, 25))
    assert all(np.isnan(part).all() for part in (u, s, vt))


def test_what_flora_merges_is_the_weighted_sum_of_products_of_all_rounds():
    method, (adapter, memory) = flora(context()), flora(context()).begin(beginning())
    expected = {a: 0.0 for a, _ in MODULES}
    head = adapter["head"]
    for round_index, (who, ranks) in enumerate([((0, 2), (4, 1)), ((1,), (3,)), ((), ())]):
        start = method.start(adapter, round_index, 7)
        updates = [trained(n, k, start) for n, k in zip(who, ranks, strict=True)]
        result, memory = method.aggregate(adapter, memory, back(updates, start))
        if updates:
            adapter, _ = server_sgd(1.0).step(adapter, result.update, {})
        share = WEIGHT[list(who)] / WEIGHT[list(who)].sum()
        for n, k, p in zip(who, ranks, share, strict=True):
            for a, b in MODULES:
                expected[a] = expected[a] + p * product(random_adapter(100 + n), a, b, k)
        if who:
            head = sum(p * random_adapter(100 + n)["head"] for n, p in zip(who, share, strict=True))
    # All that is merged travels, and the head; A and B are known.
    names = {t.name for t in method.received.tensors}
    assert names == {"head", *(MERGED + a for a, _ in MODULES)}
    for a, b in MODULES:
        np.testing.assert_allclose(adapter[MERGED + a], expected[a], atol=1e-5)
        assert not adapter[b].any()
    np.testing.assert_allclose(adapter["head"], head, atol=1e-5)


def beginning():
    """An adapter as at round 0: B is zero."""
    return {n: v * (0 if n.endswith("B") else 1) for n, v in random_adapter(0).items()}


def test_flora_merges_the_adapter_that_a_run_starts_from():
    start = random_adapter(7)
    begun, _ = flora(context()).begin(start)
    fresh = flora(context()).start(begun, 0, 0)
    for a, b in MODULES:
        np.testing.assert_allclose(begun["merged/" + a], product(start, a, b), atol=1e-6)
        assert not product(fresh, a, b).any()


def test_flora_starts_each_round_from_a_fresh_lora_that_changes_nothing():
    method = flora(context())
    adapter, _ = method.begin(beginning())
    first, again, second = (method.start(adapter, i, 7) for i in (0, 0, 1))
    for a, b in MODULES:
        assert np.array_equal(first[a], again[a])
        assert not np.array_equal(first[a], second[a])
        assert not first[b].any()
        bound = np.sqrt(3 * np.mean(adapter[a] ** 2))
        assert np.abs(first[a]).max() <= bound
    # Uniform with the mean square of the initial draw.
    wide = AdapterLayout(8, (TensorSpec("A", (8, 5000), "A"), TensorSpec("B", (3, 8), "B")))
    drawn = flora(context(layout=wide)).start({"A": np.full((8, 5000), 0.3, np.float32),
                               "B": np.zeros((3, 8), np.float32)}, 0, 7)["A"]  # fmt: skip
    assert np.sqrt(np.mean(drawn**2)) == pytest.approx(0.3, rel=0.02)


@pytest.mark.parametrize("name", EVERY)
def test_the_order_of_arrival_does_not_change_a_bit(name):
    method = EVERY[name](context())
    adapter, memory = method.begin(beginning())
    start = method.start(adapter, 0, 7)
    updates = [trained(n, k, start, LAYOUT.only(method.trained)) for n, k in enumerate((3, 1, 2))]
    for order in ([0, 1, 2], [2, 0, 1]):
        result, _ = method.aggregate(adapter, memory, back([updates[i] for i in order], start))
        if order == [0, 1, 2]:
            one = result
    assert [one.weights[i] for i in order] == result.weights
    assert [one.client_squared_norms[i] for i in order] == result.client_squared_norms
    for key in one.update:
        assert np.array_equal(one.update[key], result.update[key])


@pytest.mark.parametrize("name", EVERY)
def test_an_empty_round_moves_nothing_and_every_entry_has_an_update(name):
    method = EVERY[name](context())
    adapter, memory = method.begin(beginning())
    result, _ = method.aggregate(adapter, memory, back([], adapter))
    assert result.update.keys() == adapter.keys()
    assert not any(value.any() for value in result.update.values())


@pytest.mark.parametrize("name", EVERY)
def test_clients_who_agree_are_followed_exactly(name):
    """All have the full rank and end at the same place: so does the model."""
    method = EVERY[name](context())
    adapter, memory = method.begin(beginning())
    start = method.start(adapter, 0, 7)
    step = {t.name: random_adapter(9)[t.name] - start[t.name]
            for t in LAYOUT.only(method.trained).tensors}  # fmt: skip
    updates = [ClientUpdate(n, 0, np.arange(4), step, 0.0) for n in range(3)]
    result, _ = method.aggregate(adapter, memory, back(updates, start))
    after, _ = server_sgd(1.0).step(adapter, result.update, {})
    for a, b in MODULES:
        end = {n: start[n] + step[n] if n in step else start[n] for n in (a, b)}
        reached = product(after, a, b) + after.get(MERGED + a, 0.0)
        np.testing.assert_allclose(reached, end[b] @ end[a], atol=1e-5)
    np.testing.assert_allclose(after["head"], random_adapter(9)["head"], atol=1e-6)


@pytest.mark.parametrize("sketch", [SCALED, RESIDUAL])
def test_only_ours_is_unbiased_over_who_joins(sketch):
    q, start = np.array([0.3, 0.6, 0.9]), beginning()
    methods = {"ours": sketched(context(sketch)), "fedit": fedit(context())}
    full = sum(WEIGHT[n] * trained(n, 4, start).delta["head"] for n in range(3))
    for name, method in methods.items():
        mean = 0.0
        for size in range(4):
            for who in combinations(range(3), size):
                chance = np.prod([q[n] if n in who else 1 - q[n] for n in range(3)])
                updates = [trained(n, 4, start) for n in who]
                weights = [float(WEIGHT[n] / q[n]) for n in who]
                came = Returned(updates, start, [float(WEIGHT[n]) for n in who], weights)
                result, _ = method.aggregate(start, {}, came) if who else (None, None)
                mean = mean + (chance * result.update["head"] if who else 0.0)
        assert np.allclose(mean, full, atol=1e-6) == method.unbiased == (name == "ours")
