import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpace.core.errors import InputError
from fedpace.data.labels import codes_of
from fedpace.data.rows import read_table, to_examples


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


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["1", "01", "001", "2"], ("1", "2", "001", "01")),
        (["+1", "-0", "1_0", "1"], ("1", "+1", "-0", "1_0")),
        (["٣", "3", "３"], ("3", "٣", "３")),  # digits of other scripts are names
        (["9" * 25, 10**24, "7"], ("7", "1" + "0" * 24, "9" * 25)),
        (["1.0", 1.0, 1, "1"], ("1",)),
        (["True", True, "true", "False", False], ("false", "true")),
        ([" 5 ", 5], ("5",)),
        (["007", 7], ("7", "007")),
        (["1.50", "v0.5", "0,5"], ("0,5", "1.50", "v0.5")),
    ],
)
def test_one_value_is_one_class_however_it_was_written(labels, names):
    assert examples(*({"text": "t", "label": v} for v in labels)).label_names == names


@pytest.mark.parametrize("label", ["0.5", "401.9", "1e-07", "nan", "inf", "-2.5"])
def test_a_real_number_is_no_class_in_any_format_unless_it_is_stated(label):
    with pytest.raises(InputError, match=r"f:1: label is .*; it must be a whole number or a name"):
        examples({"text": "t", "label": label})
    with pytest.raises(InputError, match=r"f:1: label is .*; it must be a whole number or a name"):
        examples({"text": "t", "label": float(label)})
    stated = read_table([("f:1", {"text": "t", "label": label})], "f", stated=[label])
    assert stated.label == [label]


@pytest.mark.parametrize("column", ["text", "text_pair", "label", "group"])
@pytest.mark.parametrize("half", ["cut \ud83d", "\ude00"], ids=["high", "low"])
def test_half_a_surrogate_pair_is_named_in_every_column(column, half):
    row = {"text": "a", "text_pair": "b", "label": "c", "group": "d"} | {column: half}
    with pytest.raises(InputError, match=rf"f:1: {column} holds half of a surrogate pair \(\\ud"):
        table(row)
    with pytest.raises(InputError, match="f:1: response holds half of a surrogate pair"):
        table({"prompt": "whole \U0001f600", "response": half})


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"text": "a", "labels": 1}, "'labels' is probably meant as 'label': rename it"),
        ({" text": "a", "label": 1}, "column ' text' is probably meant as 'text'; rename it"),
        ({"Text": "a", "label": 1}, "column 'Text' is probably meant as 'text'"),
        ({"text": "a", "LABEL": 1}, "column 'LABEL' is probably meant as 'label'"),
        ({"\ufefftext": "a", "label": 1}, "probably meant as 'text'"),
        ({"text": "a", "Text Pair": "b", "label": 1}, "'Text Pair' is probably meant as 'text_pa"),
        ({"text": "a", "label": 1, "Group": "b"}, "'Group' is probably meant as 'group'"),
        ({"sentence": "a", "label": 1}, "'sentence' is probably meant as 'text': rename it"),
        ({"txt": "a", "lable": 1}, "'txt' is probably meant as 'text', 'lable' as 'label': ren"),
        ({"sentence1": "a", "sentence2": "b", "label": 1}, "'sentence2' as 'text_pair': rename t"),
        ({"question": "a", "answer": "b"}, "'question' .* 'prompt', 'answer' as 'response'"),
        ({"text;label": "a;1"}, "columns seem to be separated by ';': separate them by commas"),
        ({"text\tlabel": "a\t1"}, r"columns seem to be separated by '\\t'"),
    ],
)
def test_a_near_miss_is_told_the_column_that_was_meant(row, said):
    with pytest.raises(InputError, match=said):
        table(row)


def test_a_column_beside_a_known_one_of_that_name_is_left_alone():
    assert examples({"text": "a", "Text": "b", "label": 1, "topic": "x"}).text == ("a",)


@pytest.mark.parametrize(
    "label", [10**5000, "x" * 1001, float("inf"), {"a": [1]}, None, b"1"], ids=lambda v: ""
)
def test_a_label_that_is_none_is_shown_short(label):
    with pytest.raises(InputError) as caught:
        table({"text": "a", "label": 1}, {"text": "a", "label": label})
    assert len(str(caught.value)) < 250


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
