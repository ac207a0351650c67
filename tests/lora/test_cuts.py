import numpy as np
import pytest

from fedpace.core.errors import InputError
from fedpace.core.examples import Examples
from fedpace.lora import load_base, tokenise
from fedpace.lora.cuts import MOST_SPOILED, cuts_of, refuse_spoiled
from fedpace.lora.tasks import concatenate
from fedpace.lora.tokens import PROMPT_TEMPLATE, longest
from lora import tiny_models

pytestmark = pytest.mark.torch


@pytest.fixture
def decoder(folder):
    return load_base(folder("llama"), task="causal-lm")


def words(count):
    return " ".join(f"w{i % 30}" for i in range(count))


def instructions(*sizes):
    """One example for each (words of the prompt, words of the response)."""
    return Examples(
        "instruct", tuple(words(p) for p, _ in sizes), response=tuple(words(r) for _, r in sizes)
    )


def frame(decoder):
    """Tokens of the template alone."""
    ids = decoder.tokenizer(PROMPT_TEMPLATE.format(prompt=""), add_special_tokens=False)
    return len(ids["input_ids"])


def test_what_is_cut_is_counted_by_hand(decoder):
    around = frame(decoder)
    sizes = [(1, 2), (5, 3), (3, 6), (2, 11), (2, 20)]
    found = tokenise(instructions(*sizes), decoder, max_length=12)
    prompt = [around + p for p, _ in sizes]
    answer = [r + 1 for _, r in sizes]  # and the end of text
    assert found.whole.tolist() == [list(pair) for pair in zip(prompt, answer, strict=True)]
    kept_answer = [min(a, 11) for a in answer]
    kept_prompt = [min(p, 12 - a) for p, a in zip(prompt, kept_answer, strict=True)]
    lost = [[p - k, a - b] for p, k, a, b in zip(prompt, kept_prompt, answer, kept_answer,
                                                 strict=True)]  # fmt: skip
    assert found.lost.tolist() == lost
    cuts = cuts_of(found, 12)
    assert cuts.examples == 5
    assert cuts.cut == np.mean([p + a > 12 for p, a in zip(prompt, answer, strict=True)])
    assert cuts.answers_cut == 2 / 5
    assert cuts.prompts_lost == cuts.spoiled == 2 / 5
    whole = sorted(p + a for p, a in zip(prompt, answer, strict=True))
    assert (cuts.tokens_p50, cuts.tokens_max) == (whole[2], whole[-1])


def test_counts_stay_with_their_examples(decoder):
    found = tokenise(instructions((1, 2), (5, 30), (3, 6)), decoder, max_length=12)
    again = concatenate([found.take([1]), found.take([2, 0])])
    assert again.whole.tolist() == found.whole[[1, 2, 0]].tolist()
    assert again.lost.tolist() == found.lost[[1, 2, 0]].tolist()


@pytest.mark.parametrize("pair", [False, True])
def test_a_long_text_is_cut_as_the_tokenizer_cuts_it_and_counted(folder, pair):
    base = load_base(folder("bert"), task="classification", num_labels=3)
    examples = tiny_models.labelled(20, pair=pair, low=1, high=14)
    found = tokenise(examples, base, max_length=10)
    pairs = list(examples.text_pair) if pair else None
    whole = base.tokenizer(list(examples.text), pairs)
    cut = base.tokenizer(list(examples.text), pairs, truncation=True, max_length=10)
    for row in range(20):
        assert found.tokens[row].tolist() == cut["input_ids"][row]
        if pair:
            assert found.segments[row].tolist() == cut["token_type_ids"][row]
        assert found.whole[row, 0] == len(whole["input_ids"][row])
        assert found.lost[row, 0] == len(whole["input_ids"][row]) - len(cut["input_ids"][row])
    assert 0 < cuts_of(found, 10).cut < 1
    assert cuts_of(found, 10).spoiled == 0


def test_a_passage_loses_nothing(decoder):
    found = tokenise(Examples("corpus", (words(25),)), decoder, max_length=8)
    cuts = cuts_of(found, 8)
    assert (cuts.cut, cuts.spoiled) == (0, 0)


def test_a_length_that_leaves_nothing_to_learn_names_one_that_would_do(decoder):
    around = frame(decoder)
    examples = instructions(*[(3, 20)] * 9, (1, 1))
    found = tokenise(examples, decoder, max_length=12)
    wanted = -(-(around + 3 + 21) // 8) * 8
    assert wanted <= longest(decoder) == 40
    with pytest.raises(InputError, match=rf"max_length = 12: 90 % of the 10 .*; {wanted} holds 95"):
        refuse_spoiled(cuts_of(found, 12), 40)
    with pytest.raises(InputError, match=f"takes up to 16, {wanted} would hold 95 %"):
        refuse_spoiled(cuts_of(found, 12), 16)
    with pytest.raises(InputError) as caught:
        refuse_spoiled(cuts_of(found, 12), None)
    assert "w1" not in caught.value.public
    refuse_spoiled(cuts_of(tokenise(examples, decoder, max_length=wanted), wanted), 40)


def test_up_to_the_limit_a_run_goes_on_and_the_share_is_told(decoder):
    found = tokenise(instructions(*[(3, 20)] * 3, (1, 1)), decoder, max_length=12)
    cuts = cuts_of(found, 12)
    assert cuts.spoiled == MOST_SPOILED == 0.75
    refuse_spoiled(cuts, None)
    assert "75 % of the answers" in cuts.told() and "(75 % to a token or none)" in cuts.told()


def test_turns_are_counted_before_and_after_the_last_answer(decoder):
    turns = (("user", words(3)), ("assistant", words(4)), ("user", words(2)),
             ("assistant", words(9)))  # fmt: skip
    chat = Examples("chat", (words(3),), turns=(turns,))
    whole = tokenise(chat, decoder, max_length=40, chat_template="alpaca")
    [[before, answer]] = whole.whole.tolist()
    assert answer == 10 and whole.lost.tolist() == [[0, 0]]
    cut = tokenise(chat, decoder, max_length=8, chat_template="alpaca")
    assert cut.whole.tolist() == [[before, answer]]
    assert cut.lost.tolist() == [[before - 1, 3]]
