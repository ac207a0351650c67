"""Models that load and cannot do what they must: one line each, before anything is written."""

import json
import shutil

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from fedpace.core.errors import InputError
from fedpace.core.examples import Examples
from fedpace.lora import load_base, tokenise
from fedpace.lora.head import class_names, class_order
from fedpace.lora.trial import try_out
from lora import tiny_models

pytestmark = pytest.mark.torch
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 12345\n"


def load(source, **options):
    return load_base(str(source), **{"task": "classification", "num_labels": 3, **options})


@pytest.fixture
def copied(folder, tmp_path):
    def copy(architecture):
        return shutil.copytree(folder(architecture), tmp_path / architecture)

    return copy


def says(error, *parts):
    text = str(error.value)
    assert "\n" not in text and len(text) < 500
    for part in parts:
        assert part in text


@pytest.mark.parametrize(
    "architecture", ["bert", "distilbert", "gpt2", "llama", "qwen3", "roberta"]
)
def test_a_folder_without_its_tokenizer_is_refused_with_the_remedy(copied, architecture):
    source = copied(architecture)
    for path in source.glob("*token*"):
        path.unlink()
    task = "causal-lm" if architecture in tiny_models.DECODERS else "classification"
    with pytest.raises(InputError) as error:
        load(source, task=task)
    says(error, f'model "{source}"', "tokenizer")


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flipped(path):
    data = bytearray(path.read_bytes())
    data[3] ^= 0xFF
    path.write_bytes(bytes(data))


def newer(path):
    table = json.loads(path.read_text())
    table["model"]["type"] = "TokenModelOfTheFuture"
    path.write_text(json.dumps(table))


def pointer(path):
    path.write_text(POINTER)


@pytest.mark.parametrize(
    ("file", "damage", "parts"),
    [
        ("model.safetensors", pointer, ["model.safetensors: is a Git LFS pointer", "git lfs pull"]),
        ("model.safetensors", cut, ["model.safetensors: is cut off", "copy or download it again"]),
        ("model.safetensors", flipped, ["model.safetensors: is no whole safetensors file"]),
        ("model.safetensors", lambda p: p.write_bytes(b""), ["model.safetensors: is empty"]),
        ("tokenizer.json", pointer, ["tokenizer.json: is a Git LFS pointer", "git lfs pull"]),
        ("tokenizer.json", cut, ["tokenizer.json: is no JSON", "copy it again"]),
        ("tokenizer.json", newer, ["its tokenizer", "copy tokenizer.json", "update tokenizers"]),
        ("tokenizer_config.json", cut, ["tokenizer_config.json: is no JSON"]),
        ("config.json", cut, ["config.json: is no JSON"]),
        ("config.json", lambda p: p.write_text("[]"), ["config.json"]),
        ("config.json", lambda p: p.write_text('{"model_type": "bert", "hidden_size": "x"}'), []),
        ("config.json", lambda p: p.write_text('{"model_type": ["bert"]}'), ["config.json"]),
        ("model.safetensors", lambda p: p.unlink(), ["its weights"]),
    ],
)
def test_a_damaged_file_is_named_with_the_remedy(copied, file, damage, parts):
    source = copied("bert")
    damage(source / file)
    with pytest.raises(InputError) as error:
        load(source)
    says(error, f'model "{source}" cannot be loaded', *parts)
    assert "hub" not in str(error.value).replace(str(source), "")
    assert str(source) not in error.value.public


def test_a_missing_shard_is_named(copied):
    source = copied("bert")
    (source / "model.safetensors").rename(source / "model-00001-of-00002.safetensors")
    shards = {n: f"model-0000{i}-of-00002.safetensors" for i, n in enumerate("ab", start=1)}
    (source / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    with pytest.raises(InputError, match=r"model-00002-of-00002\.safetensors: is missing"):
        load(source)


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd", "sub/x.safetensors"])
def test_a_shard_outside_the_folder_is_refused(copied, name):
    source = copied("bert")
    (source / "model.safetensors").unlink()
    index = {"weight_map": {"a": name}}
    (source / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match=f"index.json: names '{name}', which is no file of that"):
        load(source)


def test_a_pointer_that_is_not_read_does_not_matter(copied):
    source = copied("bert")
    pointer(source / "pytorch_model.bin")
    pointer(source / "model.onnx")
    load(source)


def with_padding_beyond(source, end):
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    tokenizer.add_special_tokens({"pad_token": "[NEW]"})
    tokenizer.save_pretrained(source)
    config = json.loads((source / "tokenizer_config.json").read_text())
    if not end:
        config.pop("eos_token", None)
    (source / "tokenizer_config.json").write_text(json.dumps(config))


def test_a_padding_token_beyond_the_embedding_gives_way_to_the_end_of_text(copied):
    source = copied("bert")
    with_padding_beyond(source, end=True)
    base = load(source)
    assert base.tokenizer.pad_token_id == base.model.config.pad_token_id == 4


def test_a_padding_token_beyond_the_embedding_without_an_end_of_text_says_what_to_do(copied):
    source = copied("bert")
    with_padding_beyond(source, end=False)
    with pytest.raises(InputError) as error:
        load(source)
    says(error, "padding token [NEW] (35) beyond the embedding of 35", "remove pad_token")


@pytest.mark.parametrize("kind", ["single", "pair", "instruct", "corpus"])
def test_what_people_wrote_never_becomes_a_special_token(folder, kind):
    labelled = kind in ("single", "pair")
    task = "classification" if labelled else "causal-lm"
    base = load(folder("bert" if labelled else "llama"), task=task)
    nasty = "w1 [SEP] w2 </s> [PAD] w3 [CLS] </s>"
    columns = {"pair": {"text_pair": (nasty,)}, "instruct": {"response": (nasty,)}}.get(kind, {})
    label = np.array([0]) if labelled else None
    found = tokenise(Examples(kind, (nasty,), label=label, **columns), base, max_length=40)
    special = [i for i in found.tokens[0] if i in (0, 2, 3, 4)]
    if labelled:  # what the tokenizer itself adds, no more
        assert special == ([2, 3] if kind == "single" else [2, 3, 3])
    else:
        assert special == [4] and found.tokens[0][-1] == 4


def test_a_text_of_no_token_is_named(folder):
    base = load(folder("gpt2"), task="causal-lm")
    with pytest.raises(InputError, match=r"1 of 2 texts give no token at all \(the first is exam"):
        tokenise(Examples("corpus", ("w1", "\u3000")), base, max_length=8)


def test_text_that_the_tokenizer_does_not_know_is_refused(folder):
    model, _ = tiny_models.adapted(folder("bert"))
    known = tokenise(tiny_models.labelled(5), model.base, max_length=32)
    try_out(model, known)
    strange = Examples("single", ("quite other words", "w1 of a kind"), label=np.array([0, 1]))
    with pytest.raises(InputError, match="does not know 86% of the data's tokens"):
        try_out(model, tokenise(strange, model.base, max_length=32))


def test_weights_that_are_not_numbers_are_found_before_training(copied):
    source = copied("bert")
    weights = load_file(source / "model.safetensors")
    name = next(n for n in weights if "LayerNorm.weight" in n)
    weights[name][:] = float("nan")
    save_file(weights, source / "model.safetensors", {"format": "pt"})
    model, _ = tiny_models.adapted(str(source))
    with pytest.raises(InputError, match="a loss that is no finite number before any training"):
        try_out(model, tokenise(tiny_models.labelled(5), model.base, max_length=32))


def test_whatever_the_models_code_raises_is_one_line(folder, monkeypatch):
    model, _ = tiny_models.adapted(folder("bert"))

    def forward(*args, **inputs):
        raise AttributeError("no such thing\nand more")

    monkeypatch.setattr(model.base.model.bert, "forward", forward)
    with pytest.raises(InputError) as error:
        try_out(model, tokenise(tiny_models.labelled(5), model.base, max_length=32))
    says(error, "cannot be called with the data: AttributeError: no such thing;")


def test_trying_leaves_no_trace(folder):
    model, _ = tiny_models.adapted(folder("llama"), "causal-lm")
    before = {n: p.clone() for n, p in model.model.named_parameters()}
    state = torch.random.get_rng_state()
    try_out(model, tokenise(tiny_models.instructions(5), model.base, max_length=32))
    assert torch.equal(torch.random.get_rng_state(), state)
    for name, value in model.model.named_parameters():
        assert torch.equal(value, before[name]) and value.grad is None


def test_the_classes_of_a_kept_head_are_those_it_states_in_its_order():
    config = transformers.BertConfig(id2label={0: "Yes", 1: "no", 2: "maybe"})
    assert class_names(config) is None  # no head in the checkpoint
    config.architectures = ["BertForSequenceClassification"]
    assert class_names(config) == ("Yes", "no", "maybe")
    plain = transformers.BertConfig(num_labels=3, architectures=config.architectures)
    assert class_names(plain) is None  # LABEL_0, ...


def test_a_head_of_other_classes_is_kept_and_that_is_told(caplog):
    assert class_order(["a", "b"], ["B", "A"], "m") == [1, 0]
    assert class_order(["0", "1"], ["neg", "pos"], "m") == [0, 1]
    assert class_order(["a", "b", "c"], ["x", "y"], "m") == [0, 1, 2]
    assert not caplog.messages
    assert class_order(["ham", "spam"], ["neg", "pos"], "m") == [0, 1]
    told = "model m: its head was trained for the classes neg, pos and is kept for ham, spam"
    assert caplog.messages == [told]
