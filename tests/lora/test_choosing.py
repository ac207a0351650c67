"""The likeliest of the allowed answers, beside plain log-probabilities one answer at a time."""

from functools import partial

import numpy as np
import pytest
import torch

from fedpace.core.errors import InputError
from fedpace.core.examples import Examples
from fedpace.lora import tokenise
from fedpace.lora.adapter import write_adapter
from fedpace.lora.choosing import MultipleChoice
from lora import tiny_models

pytestmark = pytest.mark.torch

CHOICES = (("w4", "w5 w6", "w7"), ("w1", "w2"), (), ("w8", "w9 w3 w2", "w4 w1"))
TEXT = ("w1 w2", "w3", "w9", "w5 w5")


def log_likelihood(model, ids, start):
    with torch.no_grad():
        log = model.model(input_ids=torch.tensor(ids)[None]).logits[0].log_softmax(-1)
    return sum(float(log[t - 1, ids[t]]) for t in range(start, len(ids)))


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_the_choice_is_that_of_the_largest_log_likelihood(folder, architecture):
    adapted, adapter = tiny_models.adapted(str(folder(architecture)), "causal-lm")
    rng = np.random.default_rng(5)
    adapter = {
        n: (x + 0.5 * rng.standard_normal(x.shape)).astype(np.float32) for n, x in adapter.items()
    }
    write_adapter(adapted, adapter)  # plain calls of the model see it, too
    tokens_of = partial(tokenise, base=adapted.base, max_length=32)
    shares = []
    for place in range(3):  # which of the choices is held for the right one
        responses = tuple(c[place % len(c)] if c else "w1" for c in CHOICES)
        examples = Examples("instruct", TEXT, response=responses, choices=CHOICES)
        quiz = MultipleChoice(examples, tokens_of)
        assert len(quiz) == 3
        found = quiz.accuracy(adapted, adapter)
        right = []
        for prompt, choices, response in zip(TEXT, CHOICES, responses, strict=True):
            if not choices:
                continue
            likelihood = []
            for choice in choices:
                one = tokens_of(Examples("instruct", (prompt,), response=(choice,)))
                start = int(np.flatnonzero(one.labels[0] != -100)[0])
                likelihood.append(log_likelihood(adapted, one.tokens[0].tolist(), start))
            right.append(choices[int(np.argmax(likelihood))] == response)
        assert found == pytest.approx(np.mean(right))
        shares.append(found)
    assert max(shares) > 0 and min(shares) < 1


def test_questions_without_choices_cannot_be_scored(folder):
    adapted, _ = tiny_models.adapted(str(folder("gpt2")), "causal-lm")
    examples = Examples("instruct", ("w1",), response=("w2",))
    with pytest.raises(InputError, match="column 'choices'"):
        MultipleChoice(examples, partial(tokenise, base=adapted.base, max_length=32))
