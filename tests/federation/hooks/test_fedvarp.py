"""Server memory: no bias by exact enumeration, less noise where updates repeat."""

from itertools import combinations, product

import numpy as np
import pytest

from federation.toy import LAYOUT, blank, context, random_adapter, sketched_update
from fedpace.core.errors import InputError
from fedpace.core.sketch import RESIDUAL, SCALED
from fedpace.federation.aggregation import Returned
from fedpace.federation.hooks.fedvarp import fedvarp
from fedpace.federation.hooks.hook import hooked
from fedpace.federation.methods.sketched import sketched

SHARE = np.array([0.7, 0.3])
Q = np.array([0.4, 0.8])


PLACE = "server_memory/"


def some_memory(seed=3):
    each = [random_adapter(seed + n) for n in range(2)]
    return {PLACE + t.name: np.stack([x[t.name] for x in each]) for t in LAYOUT.tensors}


def remembering(sketch, fraction, share=SHARE):
    """Our method with the hook around it."""
    about = context(sketch, share=share)
    return hooked(sketched(about), [fedvarp(about, fraction)])


def returned(updates):
    share = [float(SHARE[u.client]) for u in updates]
    return Returned(
        updates,
        blank(),
        share,
        [s / float(Q[u.client]) for s, u in zip(share, updates, strict=True)],
    )


@pytest.mark.parametrize("sketch", [SCALED, RESIDUAL])
@pytest.mark.parametrize("ranks", [(4, 4), (2, 3)])
def test_the_mean_over_participation_and_index_sets_does_not_depend_on_the_memory(sketch, ranks):
    """For updates that differ arbitrarily from index set to index set, as scaled ones do."""
    methods = {"plain": (sketched(context(sketch)), {}),
               "memory": (remembering(sketch, 0.6), some_memory())}  # fmt: skip
    sets = [list(combinations(range(4), k)) for k in ranks]
    mean = {name: {n: v.astype(np.float64) for n, v in blank().items()} for name in methods}
    second = dict.fromkeys(methods, 0.0)
    for joined in product([False, True], repeat=2):
        chance = np.prod(np.where(joined, Q, 1 - Q)) / (len(sets[0]) * len(sets[1]))
        for chosen in product(*sets):
            updates = [
                sketched_update(n, random_adapter(100 * n + hash(chosen[n]) % 97), chosen[n])
                for n in range(2)
                if joined[n]
            ]
            for name, (method, memory) in methods.items():
                result, _ = method.aggregate(blank(), memory, returned(updates))
                second[name] += chance * sum(result.squared_norms)
                for key in mean[name]:
                    mean[name][key] += chance * result.update[key]
    for key in blank():
        np.testing.assert_allclose(mean["memory"][key], mean["plain"][key], atol=1e-5)
    assert second["memory"] != pytest.approx(second["plain"], rel=1e-3)


@pytest.mark.parametrize("sketch", [SCALED, RESIDUAL])
def test_updates_that_repeat_leave_the_share_1_minus_c_of_the_noise(sketch):
    """With y_n = Delta_n the aggregate is the full one, plus (1 - c) times plain minus full."""
    full = [random_adapter(n) for n in range(2)]
    everyone = [sketched_update(n, full[n], range(4)) for n in range(2)]
    method = remembering(sketch, 0.8)
    _, memory = method.begin(blank())
    _, memory = method.aggregate(blank(), memory, returned(everyone))
    for who in ([], [0], [1], [0, 1]):
        updates = [everyone[n] for n in who]
        result, _ = method.aggregate(blank(), memory, returned(updates))
        plain, _ = sketched(context(sketch)).aggregate(blank(), {}, returned(updates))
        for key in blank():
            target = sum(SHARE[n] * full[n][key] for n in range(2))
            expected = target + 0.2 * (plain.update[key] - target)
            np.testing.assert_allclose(result.update[key], expected, atol=1e-5)


def test_what_is_remembered_is_the_last_update_of_each_component():
    method = remembering(RESIDUAL, 0.5)
    _, memory = method.begin(blank())
    old, new = random_adapter(1), random_adapter(2)
    for full, chosen in ((old, [0, 2]), (new, [2, 3])):
        before = {name: value.copy() for name, value in memory.items()}
        _, after = method.aggregate(blank(), memory, returned([sketched_update(1, full, chosen)]))
        assert all(np.array_equal(before[name], memory[name]) for name in memory)
        memory = after
    assert not any(value[0].any() for value in memory.values())
    expected = [old["one.A"][0], np.zeros(3), new["one.A"][2], new["one.A"][3]]
    np.testing.assert_array_equal(memory[PLACE + "one.A"][1], expected)
    columns = [old["two.B"][:, 0], np.zeros(3), new["two.B"][:, 2], new["two.B"][:, 3]]
    np.testing.assert_array_equal(memory[PLACE + "two.B"][1].T, columns)
    np.testing.assert_array_equal(memory[PLACE + "head"][1], new["head"])


def test_a_scaled_update_is_remembered_without_its_factor():
    method = remembering(SCALED, 0.5)
    _, memory = method.begin(blank())
    full = random_adapter(1)
    _, memory = method.aggregate(blank(), memory, returned([sketched_update(0, full, [1])]))
    np.testing.assert_allclose(memory[PLACE + "one.A"][0, 1], full["one.A"][1] / 4, rtol=1e-6)
    np.testing.assert_array_equal(memory[PLACE + "head"][0], full["head"])


def test_too_many_clients_are_refused_with_the_size():
    with pytest.raises(InputError, match=r"100000000 clients, .* GiB, above 8; set it to 0"):
        remembering(RESIDUAL, 0.5, np.broadcast_to(1e-8, 100_000_000))


@pytest.mark.parametrize("sketch", [SCALED, RESIDUAL])
def test_a_memory_that_grew_with_the_population_adds_no_bias_for_the_new_data_weights(sketch):
    """By enumeration of who joins; the known clients' memory stays, the newcomer has none."""
    share, chance = np.array([0.2, 0.3, 0.5]), np.array([0.4, 0.8, 0.6])
    method, old = remembering(sketch, 0.6, share), some_memory()
    memory = method.grow(old)
    for name, value in memory.items():
        assert value.shape[0] == 3
        np.testing.assert_array_equal(value[:2], old[name])
        assert not value[2].any()
    full = [random_adapter(50 + n) for n in range(3)]
    mean = {name: np.zeros_like(value) for name, value in blank().items()}
    for joined in product([False, True], repeat=3):
        probability = np.prod(np.where(joined, chance, 1 - chance))
        updates = [sketched_update(n, full[n], range(4)) for n in range(3) if joined[n]]
        own = [float(share[u.client]) for u in updates]
        weights = [float(share[u.client] / chance[u.client]) for u in updates]
        result, after = method.aggregate(blank(), memory, Returned(updates, blank(), own, weights))
        assert all(value.shape[0] == 3 for value in after.values())
        for name in mean:
            mean[name] += probability * result.update[name]
    for name in mean:
        expected = sum(share[n] * full[n][name] for n in range(3))
        np.testing.assert_allclose(mean[name], expected, atol=1e-5)
