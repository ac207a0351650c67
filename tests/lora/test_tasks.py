import numpy as np
import pytest
import torch

from fedpace.core.errors import InputError
from fedpace.core.examples import Examples
from fedpace.lora import evaluate, load_base, tokenise
from fedpace.lora.tasks import collate, concatenate, draw_batches, row_scores
from fedpace.lora.tokens import IGNORED, PROMPT_TEMPLATE
from lora import tiny_models

pytestmark = pytest.mark.torch

END = 4


@pytest.fixture
def encoder(folder):
    return load_base(folder("bert"), task="classification", num_labels=3)


@pytest.fixture
def decoder(folder):
    return load_base(folder("llama"), task="causal-lm")


def ids(base, text):
    return base.tokenizer(text, add_special_tokens=False)["input_ids"]


def test_labelled_text_is_what_the_tokenizer_makes_of_it(encoder):
    examples = tiny_models.labelled(4, low=2, high=14)
    found = tokenise(examples, encoder, max_length=8)
    for row in range(4):
        expected = encoder.tokenizer(examples.text[row], truncation=True, max_length=8)
        np.testing.assert_array_equal(found.tokens[row], expected["input_ids"])
        np.testing.assert_array_equal(found.labels[row], [examples.label[row]])
    assert found.segments is None
    assert found.targets.tolist() == [1, 1, 1, 1]


def test_pairs_have_segments_where_the_model_knows_them(encoder, folder):
    examples = tiny_models.labelled(2, pair=True)
    found = tokenise(examples, encoder, max_length=32)
    expected = encoder.tokenizer(examples.text[1], examples.text_pair[1])
    np.testing.assert_array_equal(found.tokens[1], expected["input_ids"])
    np.testing.assert_array_equal(found.segments[1], expected["token_type_ids"])
    assert found.segments[1].any()
    roberta = load_base(folder("roberta"), task="classification", num_labels=3)
    assert tokenise(examples, roberta, max_length=32).segments is None


def test_an_instruction_is_learnt_on_its_response_alone(decoder):
    examples = Examples("instruct", ("w1 w2",), response=("w3 w4 w5",))
    found = tokenise(examples, decoder, max_length=32)
    prompt = ids(decoder, PROMPT_TEMPLATE.format(prompt="w1 w2"))
    response = [*ids(decoder, "w3 w4 w5"), END]
    assert found.tokens[0].tolist() == prompt + response
    assert found.labels[0].tolist() == [IGNORED] * len(prompt) + response
    assert found.targets.tolist() == [4]


@pytest.mark.parametrize("max_length", [2, 3, 4, 6, 9])
def test_a_long_instruction_loses_the_start_of_the_prompt_first(decoder, max_length):
    examples = Examples("instruct", ("w1 w2 w6",), response=("w3 w4 w5",))
    found = tokenise(examples, decoder, max_length=max_length)
    prompt = ids(decoder, PROMPT_TEMPLATE.format(prompt="w1 w2 w6"))
    response = [*ids(decoder, "w3 w4 w5"), END][: max_length - 1]
    assert found.tokens[0].tolist() == prompt[-(max_length - len(response)) :] + response
    assert len(found.tokens[0]) == max_length
    assert found.targets.tolist() == [len(response)]


def test_an_empty_response_still_teaches_the_end_of_text(decoder):
    found = tokenise(Examples("instruct", ("w1",), response=("",)), decoder, max_length=32)
    assert found.targets.tolist() == [1]
    decoder.tokenizer.eos_token = None
    with pytest.raises(InputError, match="example 0 has an empty response"):
        tokenise(Examples("instruct", ("w1",), response=("",)), decoder, max_length=32)


def test_a_passage_is_cut_into_blocks_and_nothing_of_it_is_lost(decoder):
    passages = (" ".join(f"w{i}" for i in range(9)), "w1", "w2 w3 w4")
    found = tokenise(Examples("corpus", passages), decoder, max_length=4)
    whole = [[*ids(decoder, p), END] for p in passages]
    assert [len(t) for t in found.tokens] == [4, 4, 2, 2, 4]
    assert np.concatenate(found.tokens).tolist() == sum(whole, [])
    for tokens, labels in zip(found.tokens, found.labels, strict=True):
        np.testing.assert_array_equal(tokens, labels)
    assert found.targets.tolist() == [3, 3, 1, 1, 3]


def test_a_last_block_of_one_token_predicts_nothing_and_is_left_out(decoder):
    passage = " ".join(f"w{i}" for i in range(8))
    found = tokenise(Examples("corpus", (passage,)), decoder, max_length=4)
    assert [len(t) for t in found.tokens] == [4, 4]


def test_examples_can_be_taken_and_put_together_again(encoder):
    found = tokenise(tiny_models.labelled(5, pair=True), encoder, max_length=32)
    again = concatenate([found.take([3, 1]), found.take([0])])
    assert len(again) == 3
    for row, original in enumerate([3, 1, 0]):
        np.testing.assert_array_equal(again.tokens[row], found.tokens[original])
        np.testing.assert_array_equal(again.labels[row], found.labels[original])
        np.testing.assert_array_equal(again.segments[row], found.segments[original])


def test_a_batch_is_padded_to_its_longest_and_the_padding_masked(folder):
    model, _ = tiny_models.adapted(folder("gpt2"), "causal-lm")
    examples = tokenise(Examples("corpus", ("w1", "w2 w3 w4")), model.base, max_length=32)
    batch = collate(examples, model)
    assert batch.inputs["input_ids"].tolist() == [[6, 4, 4, 4], [7, 8, 9, 4]]
    assert batch.inputs["attention_mask"].tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]
    assert batch.labels.tolist() == [[6, 4, -100, -100], [7, 8, 9, 4]]


def test_scores_are_cross_entropies_summed_over_the_targets_of_a_row(folder):
    model, _ = tiny_models.adapted(folder("llama"), "causal-lm")
    examples = tokenise(tiny_models.instructions(3), model.base, max_length=32)
    batch = collate(examples, model)
    logits = torch.randn(*batch.labels.shape, 35, generator=torch.Generator().manual_seed(0))
    losses, hits = row_scores(logits, batch)
    for row in range(3):
        expected, correct = 0.0, 0
        for t in range(1, batch.labels.shape[1]):
            label = int(batch.labels[row, t])
            if label != IGNORED:
                expected -= torch.log_softmax(logits[row, t - 1], 0)[label].item()
                correct += int(logits[row, t - 1].argmax()) == label
        assert losses[row].item() == pytest.approx(expected, rel=1e-5)
        assert hits[row].item() == correct


@pytest.mark.parametrize(("examples", "batch_size"), [(10, 4), (8, 4), (4, 4), (3, 4), (1, 4)])
def test_batches_have_no_example_twice_and_each_as_often_as_any_other(examples, batch_size):
    size = min(examples, batch_size)
    per_pass = examples // size
    count = 3 * per_pass
    batches = draw_batches(0, 1, 2, examples=examples, batch_size=batch_size, count=count)
    assert len(batches) == count
    for batch in batches:
        assert len(set(batch.tolist())) == len(batch) == size
    for start in range(0, count, per_pass):  # one permutation each
        drawn = np.concatenate(batches[start : start + per_pass])
        assert len(set(drawn.tolist())) == per_pass * size

    share = np.zeros(examples)
    for round_index in range(400):
        for batch in draw_batches(
            0, round_index, 2, examples=examples, batch_size=batch_size, count=2
        ):
            share[batch] += 1 / 800
    np.testing.assert_allclose(share, size / examples, atol=0.08)


def test_batches_belong_to_a_client_and_a_round():
    def draw(round_index, client):
        return draw_batches(0, round_index, client, examples=30, batch_size=4, count=2)

    np.testing.assert_array_equal(draw(1, 2), draw(1, 2))
    assert not np.array_equal(draw(1, 2), draw(1, 3))
    assert not np.array_equal(draw(1, 2), draw(2, 2))


@pytest.mark.parametrize("max_length", [0, 1, 41])
def test_a_length_the_model_cannot_take_is_refused(encoder, max_length):
    with pytest.raises(InputError, match=f"max_length is {max_length}; .* takes 2 to 40"):
        tokenise(tiny_models.labelled(1), encoder, max_length=max_length)


def test_the_longest_example_that_is_allowed_goes_through(folder):
    for architecture, longest in (("bert", 40), ("roberta", 39)):
        model, adapter = tiny_models.adapted(folder(architecture))
        examples = tiny_models.labelled(1, low=60, high=61)
        found = tokenise(examples, model.base, max_length=longest)
        assert len(found.tokens[0]) == longest
        evaluate(model, adapter, found)
        with pytest.raises(InputError, match=f"takes 2 to {longest}"):
            tokenise(examples, model.base, max_length=longest + 1)


def test_data_that_do_not_fit_the_task_are_refused(encoder, decoder):
    with pytest.raises(InputError, match='kind "instruct"; task "classification" needs "single"'):
        tokenise(tiny_models.instructions(1), encoder, max_length=8)
    with pytest.raises(InputError, match='kind "single"; task "causal-lm" needs "instruct"'):
        tokenise(tiny_models.labelled(1), decoder, max_length=8)
    with pytest.raises(InputError, match="no labels"):
        tokenise(Examples("single", ("w1",)), encoder, max_length=8)


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_out_of_range_is_named(encoder, label):
    examples = Examples("single", ("w1", "w2"), label=np.array([0, label]))
    with pytest.raises(InputError, match=f"example 1 has label {label}; the model has 3 classes"):
        tokenise(examples, encoder, max_length=8)
