import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpace.core.errors import InputError
from fedpace.core.examples import Examples
from fedpace.federation.partition import HOWS, partition


def labelled(count, classes=5, seed=0, groups=7):
    """Texts with a label and a group each, drawn at random and of unequal frequency."""
    rng = np.random.default_rng(seed)
    label = rng.choice(
        classes, count, p=np.arange(1, classes + 1) / np.arange(1, classes + 1).sum()
    )
    group = tuple(map(str, rng.zipf(1.5, count) % groups))
    texts = ("t",) * count
    return Examples(
        "single", texts, label=label, label_names=tuple("abcdefgh"[:classes]), group=group
    )


def mixtures(parts, examples):
    count = [np.bincount(examples.label[p], minlength=len(examples.label_names)) for p in parts]
    return np.array(count) / np.sum(count, axis=1, keepdims=True)


def skew(parts, examples):
    """Total variation between a client's labels and all labels, mean over examples."""
    overall = np.bincount(examples.label) / len(examples)
    distance = np.abs(mixtures(parts, examples) - overall).sum(axis=1) / 2
    return np.average(distance, weights=[len(p) for p in parts])


@settings(max_examples=150, deadline=None)
@given(
    how=st.sampled_from(HOWS),
    count=st.integers(1, 120),
    data=st.data(),
    alpha=st.floats(1e-6, 1e9),
    size_sigma=st.floats(0, 30),
    seed=st.integers(0, 2**32),
)
def test_every_example_goes_to_exactly_one_client_and_every_client_has_one(
    how, count, data, alpha, size_sigma, seed
):
    classes, groups = data.draw(st.tuples(st.integers(1, 8), st.integers(1, 40)))
    clients = data.draw(st.integers(1, count))
    examples = labelled(count, classes, seed % 100, groups)
    parts = partition(
        examples, clients=clients, how=how, alpha=alpha, size_sigma=size_sigma, seed=seed
    )
    assert len(parts) == clients
    assert min(map(len, parts)) >= 1
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(count))
    assert all(np.all(np.diff(part) > 0) for part in parts)


@pytest.mark.parametrize("how", HOWS)
def test_the_same_seed_gives_the_same_clients_and_another_seed_others(how):
    examples = labelled(500, groups=50)
    first, same, other = (partition(examples, clients=8, how=how, seed=seed) for seed in (3, 3, 4))
    assert all(np.array_equal(a, b) for a, b in zip(first, same, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_label_skew_grows_as_alpha_falls():
    examples = labelled(20_000)
    found = [
        np.mean(
            [skew(partition(examples, clients=40, alpha=a, seed=s), examples) for s in range(3)]
        )
        for a in (100.0, 10.0, 1.0, 0.1, 0.01)
    ]
    assert np.all(np.diff(found) > 0.02)
    assert found[0] < 0.08
    assert found[-1] > 0.55


def test_a_huge_alpha_gives_every_client_the_mixture_of_all():
    examples = labelled(20_000)
    parts = partition(examples, clients=20, alpha=1e9, seed=0)
    expected = np.bincount(examples.label) / 20
    count = mixtures(parts, examples) * 1000
    assert np.abs(count - expected).max() < 2  # of a thousand


@pytest.mark.parametrize("alpha", [0.1, 0.5, 2.0, 10.0])
@pytest.mark.parametrize("clients, classes", [(40, 2), (30, 3), (200, 10)])
def test_mixtures_have_the_variance_of_the_dirichlet_law(alpha, clients, classes):
    label = np.arange(30_000) % classes
    examples = Examples("single", ("t",) * 30_000, label=label, label_names=tuple("abcdefghij"))
    found = np.mean(
        [
            mixtures(partition(examples, clients=clients, alpha=alpha, seed=s), examples).var(
                axis=0
            )
            for s in range(10)
        ],
        axis=0,
    )[:classes].mean()
    # Var p_c of Dir(alpha 1_C); that the classes are used up takes about 1 / clients of it.
    expected = (1 / classes) * (1 - 1 / classes) / (classes * alpha + 1)
    assert 0.85 * expected < found < 1.1 * expected


def test_no_client_is_left_with_leftovers():
    # Drawn client by client, the last of 200 would get a few labels at any alpha.
    examples = labelled(6000)
    parts = partition(examples, clients=200, alpha=100.0, seed=0)
    overall = np.bincount(examples.label) / len(examples)
    assert (np.abs(mixtures(parts, examples) - overall).sum(axis=1) / 2).max() < 0.2


@pytest.mark.parametrize("alpha", [1e-3, 1e-9])
def test_a_tiny_alpha_gives_clients_of_nearly_one_label(alpha):
    examples = labelled(10_000)
    parts = partition(examples, clients=100, alpha=alpha, seed=0)
    assert np.mean(mixtures(parts, examples).max(axis=1) > 0.99) > 0.9


def test_iid_clients_have_the_mixture_of_all():
    examples = labelled(50_000)
    parts = partition(examples, clients=10, how="iid", seed=0)
    overall = np.bincount(examples.label) / len(examples)
    error = np.sqrt(overall * (1 - overall) / 5000)
    assert np.all(np.abs(mixtures(parts, examples) - overall) < 5 * error)


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("size_sigma", [0.4, 1.0])
def test_the_logarithms_of_the_sizes_have_the_deviation_asked_for(how, size_sigma):
    count, clients = 200_000, 400
    rows = np.arange(count)
    examples = Examples(
        "single",
        ("t",) * count,
        label=rows % 4,
        label_names=tuple("abcd"),
        group=tuple(map(str, rows % 20_000)),  # small groups, which can meet any share
    )
    parts = partition(examples, clients=clients, how=how, size_sigma=size_sigma, seed=1)
    log_size = np.log([len(part) for part in parts])
    error = size_sigma / np.sqrt(2 * clients)
    assert abs(log_size.std() - size_sigma) < 4 * error


@pytest.mark.parametrize("how", ["dirichlet", "iid"])
def test_sizes_are_equal_to_within_one_where_nothing_else_is_asked(how):
    sizes = [len(p) for p in partition(labelled(1003), clients=10, how=how, seed=0)]
    assert sorted(sizes) == [100] * 7 + [101] * 3


@given(clients=st.integers(1, 20), seed=st.integers(0, 1000), size_sigma=st.floats(0, 3))
@settings(max_examples=60, deadline=None)
def test_groups_stay_whole_where_there_are_enough_of_them(clients, seed, size_sigma):
    rng = np.random.default_rng(seed)
    group = np.concatenate([np.arange(20), rng.integers(0, 20, 200) ** 2 // 20])
    examples = Examples("corpus", ("t",) * len(group), group=tuple(map(str, group)))
    parts = partition(examples, clients=clients, how="group", size_sigma=size_sigma, seed=seed)
    owners = [set(group[part]) for part in parts]
    assert sum(map(len, owners)) == len(set(group))


def test_whole_groups_are_dealt_evenly_when_sizes_should_be_equal():
    group = tuple(str(i) for i in range(100) for _ in range(1 + i % 5))
    examples = Examples("corpus", ("t",) * len(group), group=group)
    sizes = [len(part) for part in partition(examples, clients=10, how="group", seed=2)]
    assert max(sizes) - min(sizes) <= 5  # no further apart than one group


def test_with_fewer_groups_than_clients_a_client_holds_one_group():
    group = ("big",) * 70 + ("middle",) * 25 + ("small",) * 5
    examples = Examples("corpus", ("t",) * 100, group=group)
    parts = partition(examples, clients=20, how="group", seed=0)
    owned = [{group[i] for i in part} for part in parts]
    assert all(len(names) == 1 for names in owned)
    held = [next(iter(names)) for names in owned]
    assert [held.count(name) for name in ("big", "middle", "small")] == [14, 5, 1]


@pytest.mark.parametrize(
    "options, said",
    [
        ({"clients": 0}, r"clients = 0; it must be from 1 to .* 10,"),
        ({"clients": 11}, r"clients = 11; it must be from 1 to .* 10,"),
        ({"alpha": 0.0}, r"alpha = 0\.0; it must be above 0"),
        ({"alpha": float("nan")}, r"alpha = nan"),
        ({"alpha": float("inf")}, r"alpha = inf"),
        ({"size_sigma": -1.0}, r"size_sigma = -1\.0; it must be 0 or more"),
        ({"size_sigma": float("nan")}, r"size_sigma = nan"),
        ({"how": "shards"}, r"partition = 'shards' is unknown; known are dirichlet, group, iid"),
    ],
)
def test_a_value_out_of_range_is_named_with_the_remedy(options, said):
    with pytest.raises(InputError, match=said):
        partition(labelled(10), **{"clients": 2, **options})


def test_a_missing_column_is_named_with_the_remedy():
    plain = Examples("corpus", ("a", "b"))
    with pytest.raises(InputError, match="'dirichlet' needs labels, 'corpus' examples have none"):
        partition(plain, clients=1, how="dirichlet")
    with pytest.raises(InputError, match="'group' needs a column"):
        partition(plain, clients=1, how="group")
