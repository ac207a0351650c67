"""The keys of [lora] reach the adapter."""

import importlib.util

import numpy as np
import pytest

from fedpace.core.errors import InputError
from fedpace.experiment.config import load_experiment

pytestmark = [
    pytest.mark.torch,
    pytest.mark.skipif(not importlib.util.find_spec("peft"), reason="needs the lora extra"),
]


def test_a_file_with_pefts_keys_builds_that_adapter_and_starts_from_a_folder(tmp_path):
    from fedpace.experiment.build import build_model
    from fedpace.lora import save_adapter
    from lora import tiny_models

    tiny_models.write("bert", tmp_path / "model")
    keys = (
        "[model]\nname = 'model'\n[lora]\nrank = 4\nalpha = 8.0\nuse_rslora = true\n"
        "target_modules = '.*layer\\.1\\..*query'\n"
        "modules_to_save = ['intermediate.dense']\ninit_lora_weights = 'gaussian'\n"
    )
    file = tmp_path / "my.toml"
    file.write_text(keys)
    model = build_model(load_experiment(file), ["a", "b", "c"])
    assert model.scale == 8.0 / 4**0.5
    assert [name.rpartition("layer.")[2] for name in model.lora_modules] == [
        "1.attention.self.query"
    ]
    assert sum(t.role == "head" for t in model.layout.tensors) == 2 + 2 * 2

    adapter = tiny_models.warm(model)
    save_adapter(model, adapter, tmp_path / "adapter")
    file.write_text(keys + "start_from = 'adapter'\n")  # beside the file
    initial = build_model(load_experiment(file), ["a", "b", "c"]).initial
    for name, value in adapter.items():
        np.testing.assert_array_equal(initial[name], value)
    file.write_text(keys.replace("rank = 4", "rank = 2") + "start_from = 'adapter'\n")
    with pytest.raises(InputError, match="has rank 4, .lora. rank is 2; set rank = 4"):
        build_model(load_experiment(file), ["a", "b", "c"])
