"""What a question allows as its answer, as it stands in a file."""

import pytest

from fedpace.core.errors import InputError
from fedpace.data.load import load_data

QUESTION = '{"prompt": "p%d", "response": "a", "choices": ["a", "b"]}\n'


def load(tmp_path, text):
    rows = [row % i for i, row in enumerate(text)]
    (tmp_path / "d.jsonl").write_text("".join(rows))
    return load_data(str(tmp_path / "d.jsonl"), seed=0)[0]


def test_a_column_of_choices_is_read_and_follows_its_examples(tmp_path):
    train = load(tmp_path, [QUESTION] * 20)
    assert set(train.choices) == {("a", "b")}
    assert train.take([1, 0]).choices == (("a", "b"),) * 2


def test_the_hubs_dictionary_of_choices_is_read(tmp_path):
    row = QUESTION.replace('["a", "b"]', '{"label": ["A", "B"], "text": ["a", "b"]}')
    assert set(load(tmp_path, [row] * 20).choices) == {("a", "b")}


def test_choices_are_read_from_the_prompt_where_it_states_them(tmp_path):
    row = '{"prompt": "%s Answer format: answer1/answer12", "response": "it is answer12"}\n'
    train = load(tmp_path, [row] * 20)
    assert set(train.choices) == {("it is answer1", "it is answer12")}


def test_open_questions_have_none(tmp_path):
    assert load(tmp_path, ['{"prompt": "p%d", "response": "a/b"}\n'] * 20).choices is None


@pytest.mark.parametrize(
    ("choices", "told"),
    [
        ('["a"]', "at least two different"),
        ('["a", "a"]', "different"),
        ('"ab"', "must be a list"),
        ('["a", 1]', "must be a list"),
        ('["b", "c"]', "'a' is none of the choices"),
    ],
)
def test_what_is_no_list_of_choices_is_refused_with_its_line(tmp_path, choices, told):
    with pytest.raises(InputError, match=r"jsonl:2: .*" + told):
        load(tmp_path, [QUESTION, QUESTION.replace('["a", "b"]', choices)])
