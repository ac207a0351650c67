"""A model that brings Python files of its own: they run where a key says so, and never unasked."""

import json
import shutil

import pytest
import torch

from fedpace.core.errors import InputError
from fedpace.lora import attach_adapter, load_base
from fedpace.lora.model import stated_classes

pytestmark = pytest.mark.torch

MODELLING = """
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM

class OwnConfig(LlamaConfig):
    model_type = "own"

class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig

Path({mark!r}).touch()
"""


@pytest.fixture
def own(folder, tmp_path, monkeypatch):
    """A Llama whose folder calls it an architecture of its own; its code leaves a mark."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "hf"))
    monkeypatch.syspath_prepend(tmp_path / "hf")
    place = shutil.copytree(folder("llama"), tmp_path / "own")
    (place / "modelling_own.py").write_text(MODELLING.format(mark=str(tmp_path / "ran")))
    config = json.loads((place / "config.json").read_text())
    config |= {
        "model_type": "own",
        "architectures": ["OwnForCausalLM"],
        "auto_map": {
            "AutoConfig": "modelling_own.OwnConfig",
            "AutoModelForCausalLM": "modelling_own.OwnForCausalLM",
        },
    }
    (place / "config.json").write_text(json.dumps(config))
    return place


def test_it_never_runs_unasked_and_nobody_is_asked(own, tmp_path, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *a: pytest.fail("asked on the terminal"))
    for load in (lambda: load_base(str(own), task="causal-lm"), lambda: stated_classes(str(own))):
        with pytest.raises(InputError, match=r"Python files of its own.*trust_remote_code = true"):
            load()
    assert not (tmp_path / "ran").exists()


def test_it_runs_where_the_key_says_so_and_is_the_model_it_is(own, folder, tmp_path):
    base = load_base(str(own), task="causal-lm", trust_remote_code=True)
    assert type(base.model).__name__ == "OwnForCausalLM"
    assert (tmp_path / "ran").exists()
    plain = load_base(str(folder("llama")), task="causal-lm")
    ids = torch.arange(5)[None]
    with torch.no_grad():
        assert torch.equal(base.model(input_ids=ids).logits, plain.model(input_ids=ids).logits)
    assert attach_adapter(base, rank=2, alpha=4.0, target_modules=["q_proj"]).layout.rank == 2
