"""An adapter to start from: a folder in PEFT's format, held against the model at hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from fedpace.core.adapter import Array
from fedpace.core.errors import InputError
from fedpace.lora.adapter import ADAPTER_NAME, AdaptedModel

_UNLIKE_OURS = {
    "use_dora": "DoRA's magnitudes belong to no rank component, so they cannot be sketched",
    "rank_pattern": "a rank of its own for a module: one index set must fit all modules",
    "alpha_pattern": "a scale of its own for a module: the factor of B A is one for all",
    "lora_bias": "it has biases in B, which belong to no rank component",
}


def load_start(adapted: AdaptedModel, folder: str | Path) -> dict[str, Array]:
    """Read an adapter that PEFT or FedPace saved, as round 0's global adapter.

    Args:
        adapted: the model with LoRA layers, whose rank, scale and modules the adapter must have.
        folder: with adapter_config.json and adapter_model.safetensors.

    Returns:
        Name -> float32 array, as the model's layout says.

    Raises:
        InputError: the folder is no such adapter, or rank, scale or modules do not fit.
    """
    place = Path(folder).expanduser()
    where = f'[lora] start_from = "{place}"'
    config = _config(place, where)
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if rank != adapted.layout.rank:
        raise InputError(
            f"{where} has rank {rank}, [lora] rank is {adapted.layout.rank}; set rank = {rank}"
        )
    if bool(config.get("use_rslora")) != adapted.rslora or alpha != adapted.alpha:
        raise InputError(
            f"{where} has lora_alpha {alpha} and use_rslora {bool(config.get('use_rslora'))}, "
            f"[lora] has {adapted.alpha:g} and {adapted.rslora}; set them alike"
        )
    try:
        found = load_file(place / "adapter_model.safetensors")
    except (OSError, SafetensorError, TypeError, KeyError) as error:
        raise InputError(
            f"{where}: its adapter_model.safetensors cannot be read ({error}); "
            "save it anew with save_pretrained"
        ) from None
    start: dict[str, Array] = {}
    for t in adapted.layout.tensors:
        key = t.name.replace(f".modules_to_save.{ADAPTER_NAME}", "").replace(f".{ADAPTER_NAME}", "")
        value = found.pop(key, None)
        if value is None or value.shape != t.shape:
            has = "nothing" if value is None else f"shape {value.shape}"
            raise InputError(
                f"{where} has {has} for {key}, the model {t.shape}; it is for another model, or "
                f"for target_modules = {_shown(config)}"
            )
        start[t.name] = value.astype(np.float32)
    if found:
        raise InputError(
            f"{where} has tensors that are not adapted here, such as {min(found)}; it is for "
            f"target_modules = {_shown(config)}, modules_to_save = {config.get('modules_to_save')}"
        )
    return start


def _config(place: Path, where: str) -> dict[str, Any]:
    try:
        config = json.loads((place / "adapter_config.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{where}: no adapter_config.json can be read there ({error}); give a folder that "
            "PEFT's save_pretrained wrote, such as a run's adapter folder"
        ) from None
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise InputError(f"{where} is no LoRA adapter; give one whose peft_type is LORA")
    for key, reason in _UNLIKE_OURS.items():
        if config.get(key):
            raise InputError(f"{where} has {key} = {config[key]}: {reason}")
    if config.get("bias", "none") != "none":
        raise InputError(f"{where} trains biases (bias = {config['bias']!r}); use bias = 'none'")
    return config


def _shown(config: dict[str, Any]) -> str:
    return json.dumps(config.get("target_modules"))
