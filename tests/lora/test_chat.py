"""Conversations: whose words the loss is taken on, whatever the template does around them."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from fedpace.core.errors import InputError
from fedpace.core.examples import Examples
from fedpace.lora import chat, load_base, tokenise
from fedpace.lora.tokens import IGNORED

pytestmark = pytest.mark.torch

TURNS = (
    ("system", "be brief"),
    ("user", "two and two?"),
    ("assistant", "four"),
    ("user", "assistant three and three?"),
    ("assistant", "six of them "),
)
OWN = {
    "trims": "{% for m in messages %}[{{ m.role }}]{{ m.content | trim }}</s>{% endfor %}",
    "thinks, and forgets earlier thoughts": (
        "{% for m in messages %}[{{ m.role }}]{% if m.role == 'assistant' and loop.last %}"
        "<think>\n</think>{% endif %}{{ m.content }}</s>{% endfor %}"
    ),
    "adds a system prompt": (
        "{% if messages[0].role != 'system' %}[system]help</s>{% endif %}"
        "{% for m in messages %}[{{ m.role }}] {{ m.content }}</s>\n{% endfor %}"
    ),
}


@pytest.fixture(scope="module")
def tokenizer():
    """Every byte a token, so that what is marked can be read back to the letter."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"</s>": 0, "<|im_end|>": 1, **{c: i + 2 for i, c in enumerate(alphabet)}}
    inner = Tokenizer(models.BPE(vocabulary, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="</s>", additional_special_tokens=["<|im_end|>"]
    )


def answers(tokenizer, found):
    """The marked stretches as text."""
    stretches, current = [], []
    for token, marked in zip([*found.ids, None], [*found.answer, False], strict=True):
        if marked:
            current.append(token)
        elif current:
            stretches.append(tokenizer.decode(current))
            current = []
    return stretches


@pytest.mark.parametrize("template", [*OWN.values(), *chat.TEMPLATES.values()],
                         ids=[*OWN, *chat.TEMPLATES])  # fmt: skip
def test_what_is_marked_is_what_the_assistant_said_and_its_end(tokenizer, template):
    found = chat.tokenise_chat(tokenizer, TURNS, template)
    end = "<|im_end|>" if template == chat.CHATML else "</s>"
    last = "six of them" if "trim" in template else "six of them "
    assert answers(tokenizer, found) == ["four" + end, last + end]
    assert tokenizer.decode(found.ids) == chat.render(tokenizer, TURNS, template)


def test_the_same_words_elsewhere_are_not_taken_for_the_answer(tokenizer):
    turns = [("user", "say user: a"), ("assistant", "a")]
    found = chat.tokenise_chat(tokenizer, turns, OWN["trims"])
    assert answers(tokenizer, found) == ["a</s>"]
    before = found.ids[: found.answer.index(True)]
    assert tokenizer.decode(before).endswith("[assistant]")


def test_the_name_of_a_special_token_in_someones_words_is_no_special_token(tokenizer):
    turns = [("user", "what does </s> do?"), ("assistant", "</s> ends a text")]
    found = chat.tokenise_chat(tokenizer, turns, OWN["trims"])
    assert found.ids.count(0) == 2  # the template's own
    assert answers(tokenizer, found) == ["</s> ends a text</s>"]


def test_words_that_are_nothing_but_a_special_tokens_name_are_found_where_they_stand(tokenizer):
    turns = [("user", "how does a text end?"), ("assistant", "</s>")]
    found = chat.tokenise_chat(tokenizer, turns, OWN["trims"])
    marked = [i for i, answer in zip(found.ids, found.answer, strict=True) if answer]
    assert marked.count(0) == 1 and marked[-1] == 0  # the template's own, behind four letters
    assert found.ids.count(0) == 2
    assert answers(tokenizer, found) == ["</s></s>"]


def test_a_template_that_drops_the_assistant_or_refuses_the_turns_is_an_error(tokenizer):
    with pytest.raises(InputError, match="leaves out turn 3 of 5"):
        chat.tokenise_chat(
            tokenizer, TURNS,
            "{% for m in messages if m.role != 'assistant' %}{{ m.content }}{% endfor %}",
        )  # fmt: skip
    with pytest.raises(InputError, match="system, user, assistant.*only users"):
        chat.tokenise_chat(tokenizer, TURNS, "{{ raise_exception('only users') }}")
    with pytest.raises(InputError, match="no Jinja template"):
        chat.tokenise_chat(tokenizer, TURNS, "{% for %}")


def test_templates_are_found_by_name_by_file_and_in_the_model(tokenizer, tmp_path):
    with pytest.raises(InputError, match="no chat template of its own.*chatml"):
        chat.template_of(tokenizer, "model", "tiny")
    file = tmp_path / "mine.jinja"
    file.write_text(OWN["trims"])
    assert chat.template_of(tokenizer, str(file), "tiny") == OWN["trims"]
    assert chat.template_of(tokenizer, "chatml", "tiny") == chat.CHATML
    with pytest.raises(InputError, match="'chatmll' is none of 'model', 'plain'"):
        chat.template_of(tokenizer, "chatmll", "tiny")


@pytest.fixture
def decoder(folder, tokenizer):
    base = load_base(str(folder("llama")), task="causal-lm")
    object.__setattr__(base, "tokenizer", tokenizer)
    return base


CHATS = Examples("chat", ("two and two?",), turns=(TURNS,))


def test_the_loss_is_on_the_assistants_words_or_on_all(decoder, tokenizer):
    options = {"max_length": 40, "chat_template": "chatml"}
    short = Examples("chat", ("2?",), turns=((("user", "2?"), ("assistant", "3")),))
    decoder.model.config.max_position_embeddings = 400
    options["max_length"] = 400
    response = tokenise(short, decoder, **options)
    everything = tokenise(short, decoder, loss_on="all", **options)
    marked = response.labels[0][response.labels[0] != IGNORED]
    assert tokenizer.decode(marked) == "3<|im_end|>"
    assert (everything.labels[0] == everything.tokens[0]).all()
    assert (everything.tokens[0] == response.tokens[0]).all()


@pytest.mark.parametrize("length", [8, 16, 40])
def test_what_is_too_long_loses_its_oldest_tokens_and_keeps_the_last_response(
    decoder, tokenizer, length
):
    found = tokenise(CHATS, decoder, max_length=length, chat_template="chatml")
    whole = "six of them <|im_end|>"
    kept = tokenizer.decode(found.labels[0][found.labels[0] != IGNORED])
    assert len(found.tokens[0]) == length
    room = length - 1
    assert kept.endswith(whole) if room >= 13 else kept == whole[:room]


def test_prompt_and_response_go_through_the_template_too(decoder, tokenizer):
    decoder.model.config.max_position_embeddings = 400
    instruct = Examples("instruct", ("2?",), response=("3",))
    turns = Examples("chat", ("2?",), turns=((("user", "2?"), ("assistant", "3")),))
    for template in ("chatml", "alpaca"):
        options = {"max_length": 400, "chat_template": template}
        one, other = (tokenise(e, decoder, **options) for e in (instruct, turns))
        assert one.tokens[0].tolist() == other.tokens[0].tolist()
        assert one.labels[0].tolist() == other.labels[0].tolist()
