"""The running mean as a control variate: no bias by enumeration, no scatter of what is common."""

from itertools import combinations, product

import numpy as np
import pytest

from federation.toy import LAYOUT, blank, random_adapter, sketched_update
from fedpace.federation.aggregation import Returned
from fedpace.federation.methods.running_mean import running_mean
from fedpace.federation.methods.sketched import sketched

SHARE = np.array([0.7, 0.3])
Q = np.array([0.4, 0.8])
MEAN = random_adapter(3)


def returned(updates):
    share = [float(SHARE[u.client]) for u in updates]
    weight = [float(SHARE[u.client] / Q[u.client]) for u in updates]
    return Returned(updates, blank(), share, weight)


@pytest.mark.parametrize("sketch", ["scaled", "residual"])
@pytest.mark.parametrize("ranks", [(4, 4), (2, 3)])
def test_the_mean_over_participation_and_index_sets_is_that_without_memory(sketch, ranks):
    """For updates that differ arbitrarily from index set to index set, as scaled ones do."""
    methods = {"plain": (sketched(LAYOUT, sketch), {}),
               "mean": (running_mean(LAYOUT, sketch, 0.5), MEAN)}  # fmt: skip
    sets = [list(combinations(range(4), k)) for k in ranks]
    found = {name: {n: v.astype(np.float64) for n, v in blank().items()} for name in methods}
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
                for key in found[name]:
                    found[name][key] += chance * result.update[key]
    for key in blank():
        np.testing.assert_allclose(found["mean"][key], found["plain"][key], atol=1e-5)
    assert second["mean"] != pytest.approx(second["plain"], rel=1e-3)


@pytest.mark.parametrize("who", [[], [0], [1], [0, 1]])
def test_who_joins_makes_no_difference_to_what_all_updates_have_in_common(who):
    """Weights of independent sampling add up to 0, 1.75, 0.375 or 2.125 here."""
    method = running_mean(LAYOUT, "residual", 0.5)
    updates = [sketched_update(n, MEAN, [0, 2] if n else range(4)) for n in who]
    result, after = method.aggregate(blank(), MEAN, returned(updates))
    for key in blank():
        np.testing.assert_allclose(result.update[key], MEAN[key], atol=1e-5)
        np.testing.assert_allclose(after[key], MEAN[key], atol=1e-5)


def test_the_first_round_is_plain_and_older_ones_are_forgotten():
    method, plain = running_mean(LAYOUT, "scaled", 0.75), sketched(LAYOUT, "scaled")
    _, memory = method.begin(blank())
    updates = [sketched_update(0, random_adapter(1), [1, 3])]
    first, memory = method.aggregate(blank(), memory, returned(updates))
    expected, _ = plain.aggregate(blank(), {}, returned(updates))
    for key in blank():
        np.testing.assert_array_equal(first.update[key], expected.update[key])
        np.testing.assert_allclose(memory[key], 0.25 * expected.update[key], rtol=1e-6)
    second, after = method.aggregate(blank(), memory, returned([]))
    for key in blank():
        np.testing.assert_array_equal(second.update[key], memory[key])
        np.testing.assert_allclose(after[key], memory[key], rtol=1e-6)
    assert second.squared_norms[1] == pytest.approx(float(np.sum(memory["head"] ** 2)))
