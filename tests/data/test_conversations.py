"""Conversations and instructions in the columns that people have."""

import json
import logging

import pytest

from fedpace.core.errors import InputError
from fedpace.data.load import load_data

CHAT = [{"role": "user", "content": "two and two?"}, {"role": "assistant", "content": "four"}]
SHARE = [{"from": "human", "value": "two and two?"}, {"from": "gpt", "value": "four"}]


def load(tmp_path, rows):
    lines = [json.dumps({**row, "n": i}) for i, row in enumerate(rows)]
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    (tmp_path / "test.jsonl").write_text("\n".join(lines[:1]).replace("two", "six"))
    return load_data(str(tmp_path), seed=0)


def numbered(row, key, count=12):
    """Conversations that differ, so that some can be held out."""
    for i in range(count):
        yield {key: [{**row[0], list(row[0])[1]: f"{i} and two?"}, row[1]]}


@pytest.mark.parametrize(("row", "key"), [(CHAT, "messages"), (SHARE, "conversations")])
def test_a_conversation_is_its_turns_whoever_named_the_columns(tmp_path, row, key, caplog):
    with caplog.at_level(logging.WARNING):
        train, _ = load(tmp_path, numbered(row, key))
    assert train.kind == "chat" and len(train) == 12
    assert train.turns[3] == (("user", "3 and two?"), ("assistant", "four"))
    assert train.text[3] == "user: 3 and two?\nassistant: four"
    assert ("ShareGPT" in caplog.text) == (key == "conversations")
    assert train.take([3]).turns == train.turns[3:4]


def test_alpaca_is_prompt_and_response_and_says_so(tmp_path, caplog):
    rows = [{"instruction": f"Add {i}.", "input": "2" if i % 2 else "", "output": "4"}
            for i in range(12)]  # fmt: skip
    with caplog.at_level(logging.WARNING):
        train, _ = load(tmp_path, rows)
    assert train.kind == "instruct"
    assert train.text[:2] == ("Add 0.", "Add 1.\n\n2") and train.response[0] == "4"
    assert caplog.text.count("Alpaca") == 2  # once for each file


def test_dolly_is_prompt_response_and_group(tmp_path, caplog):
    rows = [{"instruction": f"Who {i}?", "context": "He" if i % 2 else "", "response": "he",
             "category": "open_qa"} for i in range(12)]  # fmt: skip
    with caplog.at_level(logging.WARNING):
        train, _ = load(tmp_path, rows)
    assert train.text[:2] == ("Who 0?", "Who 1?\n\nHe") and train.group[0] == "open_qa"
    assert "Dolly" in caplog.text


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ("hello", "list of"),
        ([], "list of"),
        (["hello"], "turn 1"),
        ([{"role": "tool", "content": "x"}], "role of turn 1.*'tool'.*user"),
        ([*CHAT, {"role": "user", "content": " "}], "content of turn 3"),
        ([{"role": "user", "content": [{"type": "image"}]}], "content of turn 1.*not supported"),
        ([{"role": "user", "content": "x"}], "no turn is the assistant"),
        ([CHAT[0], {"role": "assistant", "content": "\ud83d"}], "turn 2 holds half of a surrogate"),
    ],
)
def test_a_conversation_that_is_none_is_an_error_with_its_place(tmp_path, messages, words):
    with pytest.raises(InputError, match=rf"train\.jsonl:2.*{words}") as caught:
        load(tmp_path, [{"messages": CHAT}, {"messages": messages}])
    for private in ("hello", "train.jsonl", "'tool'"):
        assert private not in caught.value.public
