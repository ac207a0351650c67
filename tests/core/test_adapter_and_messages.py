from collections import Counter

import numpy as np

from federation.toy import LAYOUT, blank, random_adapter
from fedpace.core.adapter import add_components, squared_norms, take_components
from fedpace.core.messages import draw_components


def test_values_are_counted_per_rank_component():
    assert LAYOUT.values_per_rank == 3 + 5 + 2 + 3
    assert LAYOUT.head_values == 6


def test_taking_and_adding_back_moves_the_chosen_components_alone():
    full, chosen = random_adapter(0), np.array([0, 2])
    total = blank()
    add_components(total, take_components(full, LAYOUT, chosen), LAYOUT, chosen,
                   lora_weight=2.0, head_weight=1.0)  # fmt: skip
    np.testing.assert_array_equal(total["one.A"][[0, 2]], 2 * full["one.A"][[0, 2]])
    np.testing.assert_array_equal(total["one.B"][:, [0, 2]], 2 * full["one.B"][:, [0, 2]])
    assert not total["one.A"][[1, 3]].any() and not total["one.B"][:, [1, 3]].any()
    np.testing.assert_array_equal(total["head"], full["head"])


def test_squared_norms_tell_the_head_from_the_rest():
    adapter = random_adapter(1)
    lora, head = squared_norms(adapter, LAYOUT)
    assert np.isclose(head, np.sum(adapter["head"] ** 2))
    assert np.isclose(lora + head, sum(np.sum(v**2) for v in adapter.values()))


def test_index_sets_are_distinct_sorted_and_uniform():
    counts = Counter()
    for client in range(3000):
        chosen = draw_components(0, 9, client, 6, 2)
        assert chosen.dtype == np.int64 and chosen[0] < chosen[1] < 6
        counts[tuple(chosen.tolist())] += 1
    assert len(counts) == 15
    assert max(abs(c - 200) for c in counts.values()) < 5 * np.sqrt(200)


def test_full_rank_draws_every_component():
    assert draw_components(1, 2, 3, 5, 5).tolist() == [0, 1, 2, 3, 4]
