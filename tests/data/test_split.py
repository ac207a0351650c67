import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpace.core.errors import InputError
from fedpace.core.examples import Examples
from fedpace.data.split import essence, hold_out


def numbered(labels):
    names = tuple(map(str, range(max(labels) + 1)))
    texts = tuple(f"text number {i}" for i in range(len(labels)))
    return Examples("single", texts, label=np.array(labels), label_names=names)


@given(
    st.lists(st.integers(0, 4), min_size=2, max_size=60), st.floats(0.01, 0.6), st.integers(0, 9)
)
def test_every_class_gives_its_share_to_within_one(labels, share, seed):
    train, test = hold_out(numbered(labels), share, seed)
    assert sorted(train.text + test.text) == sorted(numbered(labels).text)
    assert len(test) == max(1, round(share * len(labels)))
    for c in set(labels):
        expected = labels.count(c) * len(test) / len(labels)
        assert abs(np.count_nonzero(test.label == c) - expected) < 1


@given(st.lists(st.sampled_from("abcdef"), min_size=2, max_size=40), st.integers(0, 9))
def test_texts_that_differ_in_white_space_and_case_only_stay_on_one_side(letters, seed):
    disguises = ["{}!", " {} .", "\n{}"]
    texts = [d.format(c if i % 2 else c.upper()) for i, c in enumerate(letters) for d in disguises]
    if len(set(letters)) < 2:
        with pytest.raises(InputError, match=r"hold 1 different text"):
            hold_out(Examples("corpus", tuple(texts)), 0.3, seed)
        return
    train, test = hold_out(Examples("corpus", tuple(texts)), 0.3, seed)
    assert not {essence(t) for t in train.text} & {essence(t) for t in test.text}
    assert train.text and test.text


def test_a_pair_is_known_by_both_its_texts():
    rows = Examples("pair", ("same",) * 10, text_pair=tuple("abcdefghij"))
    train, test = hold_out(rows, 0.2, seed=3)
    assert (len(train), len(test)) == (8, 2)


def test_the_seed_decides_and_the_order_stays():
    rows = numbered([0, 1] * 50)
    tests = [hold_out(rows, 0.2, seed)[1].text for seed in (0, 0, 1)]
    assert tests[0] == tests[1] != tests[2]
    place = {text: i for i, text in enumerate(rows.text)}
    assert sorted(tests[0], key=place.get) == list(tests[0])


def test_over_many_seeds_every_example_is_held_out_as_often():
    rows = numbered([0] * 10 + [1] * 30)
    times = np.zeros(40)
    for seed in range(400):
        test = hold_out(rows, 0.25, seed)[1]
        times[[int(text.split()[-1]) for text in test.text]] += 1
    np.testing.assert_allclose(times / 400, 0.25, atol=5 * np.sqrt(0.25 * 0.75 / 400))
    # A class of 10 gives 2 or 3, as often the one as the other.
    assert abs(times[:10].sum() / 400 - 2.5) < 5 * 0.5 / np.sqrt(400)
