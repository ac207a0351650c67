"""Answers of an adapted language model, beside what plain transformers generates."""

import numpy as np
import pytest
import torch

from fedpace.core.errors import InputError
from fedpace.core.examples import Examples
from fedpace.lora import tokenise
from fedpace.lora.answers import exact_match, known, rouge_l, score
from fedpace.lora.generation import generate, questions
from lora import tiny_models

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def model(request, folder):
    adapted, adapter = tiny_models.adapted(str(folder(request.param)), "causal-lm")
    rng = np.random.default_rng(3)
    moved = {
        n: (x + 0.3 * rng.standard_normal(x.shape)).astype(np.float32) for n, x in adapter.items()
    }
    return adapted, adapter, moved


def asked(model, count=5):
    return questions(tokenise(tiny_models.instructions(count), model.base, max_length=32), count)


def by_hand(model, prompt, tokens):
    """One token after another, each the likeliest, without cache, padding or batch."""
    ids, end = torch.tensor(prompt)[None], model.base.tokenizer.eos_token_id
    with torch.no_grad():
        for _ in range(tokens):
            ids = torch.cat([ids, model.model(input_ids=ids).logits[:, -1:].argmax(-1)], 1)
            if ids[0, -1] == end:
                break
    new = ids[0, len(prompt) :]
    return model.base.tokenizer.decode(new, skip_special_tokens=True).strip()


def test_an_answer_is_the_likeliest_token_after_the_likeliest_token(model):
    adapted, _, moved = model
    prompts = [q.prompt for q in asked(adapted)]
    answers = generate(adapted, moved, prompts, max_new_tokens=6, batch_size=3)
    # `generate` left the adapter in the model: plain calls of it see the same.
    assert answers == [by_hand(adapted, p, 6) for p in prompts]
    assert len(set(answers)) > 1


def test_the_adapter_makes_the_answer(model):
    adapted, initial, moved = model
    prompts = [q.prompt for q in asked(adapted)]
    before, after = (generate(adapted, a, prompts, max_new_tokens=6) for a in (initial, moved))
    assert before != after
    assert generate(adapted, initial, prompts, max_new_tokens=6) == before


def test_a_question_is_what_stands_before_the_last_response(folder):
    adapted, _ = tiny_models.adapted(str(folder("llama")), "causal-lm")
    examples = Examples("instruct", ("w1 w2", "w3"), response=("w4 w5", "w6"))
    tokens = tokenise(examples, adapted.base, max_length=32)
    found = questions(tokens, 2)
    for i, question in enumerate(found):
        whole = np.concatenate([question.prompt, question.expected])
        assert whole.tolist() == tokens.tokens[i].tolist()
    decode = adapted.base.tokenizer.decode
    assert [decode(q.expected, skip_special_tokens=True) for q in found] == ["w4 w5", "w6"]
    assert len(questions(tokens, 1)) == 1


def test_a_prompt_that_was_cut_is_no_question(folder):
    adapted, _ = tiny_models.adapted(str(folder("llama")), "causal-lm")
    examples = Examples("instruct", ("w1 " * 30, "w3"), response=("w4", "w6"))
    [question] = questions(tokenise(examples, adapted.base, max_length=12), 2)
    assert adapted.base.tokenizer.decode(question.expected, skip_special_tokens=True) == "w6"


@pytest.mark.parametrize(
    ("answer", "expected", "value"),
    [
        ("so 1,234 of them", "#### 1234", 1.0),
        ("it is -3", "#### 3", 0.0),
        ("no number", "#### 3", 0.0),
        ("Yes  it is", "yes it is", 1.0),
        ("yes", "yes it is", 0.0),
        ("7.50 dollars", "7.5", 1.0),
    ],
)
def test_exact_match_is_on_the_last_number_or_the_text(answer, expected, value):
    assert exact_match(answer, expected) == value


def test_rouge_l_is_the_longest_common_subsequence():
    pytest.importorskip("rouge_score")
    # Of "the cat sat" and "the cat is here" two words are common: 2/3 and 2/4.
    assert rouge_l("the cat sat", "the cat is here") == pytest.approx(
        2 * (2 / 3) * 0.5 / (2 / 3 + 0.5)
    )


def test_scores_are_means_and_unknown_names_are_refused():
    assert score(["exact-match"], ["1", "2"], ["1", "3"]) == {"exact-match": 0.5}
    with pytest.raises(InputError, match="'bleu'.*exact-match, rouge-l"):
        known(["bleu"])
