import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpace.core.errors import InputError
from fedpace.data.rows import codes_of, read_table, to_examples


def table(*rows):
    return read_table([(f"f:{i}", row) for i, row in enumerate(rows, start=1)], "f")


def examples(*rows, names=None):
    found = table(*rows)
    return to_examples(found, *codes_of(found.label, names))


@pytest.mark.parametrize(
    "row, kind, text",
    [
        ({"text": "a", "label": 0}, "single", "a"),
        ({"text": "a", "label": 0, "id": 7}, "single", "a"),
        ({"text": "a", "text_pair": "b", "label": 0}, "pair", "a"),
        ({"prompt": "p", "response": "r", "text": None}, "instruct", "p"),
        ({"text": "a"}, "corpus", "a"),
    ],
)
def test_the_columns_say_the_kind(row, kind, text):
    found = examples(row)
    assert (found.kind, found.text, found.group) == (kind, (text,), None)
    assert found.text_pair == (("b",) if kind == "pair" else None)
    assert found.response == (("r",) if kind == "instruct" else None)
    assert found.label_names == (("0",) if "label" in row else None)


def test_a_group_column_is_kept_and_numbers_become_names():
    assert examples({"text": "a", "group": "x"}, {"text": "b", "group": 3}).group == ("x", "3")


def test_integer_labels_are_numbered_in_order_of_size_also_where_written_as_strings():
    found = examples(*({"text": "t", "label": v} for v in ["10", "9", 1, "10", 2.0]))
    assert found.label_names == ("1", "2", "9", "10")
    assert found.label.tolist() == [3, 2, 0, 3, 1]


def test_string_labels_are_numbered_in_sorted_order():
    found = examples(*({"text": "t", "label": v} for v in ["spam", "ham ", "spam", True]))
    assert found.label_names == ("ham", "spam", "true")
    assert found.label.tolist() == [1, 0, 1, 2]


def test_with_stated_names_a_number_is_an_index_and_a_name_a_name():
    found = examples(*({"text": "t", "label": v} for v in [0, "1", "b", "a"]), names=["b", "a"])
    assert (found.label_names, found.label.tolist()) == (("b", "a"), [0, 1, 0, 1])


def test_names_that_are_numbers_are_still_indexed():
    found = examples({"text": "t", "label": 1}, {"text": "t", "label": "0"}, names=["1", "2"])
    assert found.label.tolist() == [1, 0]


@given(st.lists(st.one_of(st.integers(-5, 20), st.sampled_from(["a", "b c", "x"])), min_size=1))
def test_the_name_of_a_label_is_what_the_data_say(labels):
    found = examples(*({"text": "t", "label": label} for label in labels))
    assert [found.label_names[c] for c in found.label] == [str(label) for label in labels]
    assert sorted(set(found.label.tolist())) == list(range(len(found.label_names)))


good = {"text": "a", "label": 0}


@pytest.mark.parametrize(
    "rows, said",
    [
        ([], r"f: holds no examples; known are \{text, text_pair, label\}, \{text, label\}"),
        ([{"sentence": "a", "y": 1}], r"f:1: columns \{sentence, y\} make no example; known are"),
        ([good, {"text": "b"}], r"f:2: label is missing"),
        ([good, {"text": "b", "label": None}], r"f:2: label is missing"),
        ([good, {"text": "b", "label": ""}], r"f:2: label is ''"),
        ([good, {"text": "b", "label": 0.5}], r"f:2: label is 0\.5; it must be a whole number or"),
        ([good, {"text": "b", "label": float("nan")}], r"f:2: label is nan"),
        ([good, {"text": "b", "label": ["x"]}], r"f:2: label is \['x'\]"),
        ([good, {"text": " \n", "label": 1}], r"f:2: text is empty; fill it in or leave the row"),
        ([good, {"text": 5, "label": 1}], r"f:2: text is 5; it must be a string"),
        ([good, good | {"text_pair": "b"}], r"f:2: columns .* among examples of kind 'single'"),
        ([good, {"prompt": "p", "response": "r"}], r"f:2: .*among .* 'single'; give each kind a f"),
        ([{"text": "a"}, good], r"f:2: columns \{text, label\} among examples of kind 'corpus'"),
        ([{"prompt": "p", "response": "r"}, {"prompt": "q"}], r"f:2: response is missing"),
        ([{"prompt": "p", "response": ""}], r"f:1: response is empty"),
        ([good | {"group": "g"}, good], r"f:2: group is missing; the first row has it"),
        ([good | {"group": ""}], r"f:1: group is empty"),
    ],
)
def test_a_faulty_row_is_named_with_its_place_and_the_remedy(rows, said):
    with pytest.raises(InputError, match=said) as caught:
        table(*rows)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("label", [2, -1, "c"])
def test_a_label_that_is_no_class_is_named_with_its_place(label):
    with pytest.raises(
        InputError, match=rf"f:2: label {label!r} is none of the 2 classes \(a, b\)"
    ):
        examples({"text": "t", "label": 0}, {"text": "t", "label": label}, names=["a", "b"])
