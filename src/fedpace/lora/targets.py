"""Which modules get LoRA layers: by name, by regular expression, or all linear ones, as in PEFT."""

import logging
import re
from collections.abc import Callable, Iterable, Sequence

from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from torch import nn
from transformers.pytorch_utils import Conv1D

from fedpace.core.errors import InputError
from fedpace.lora.model import BaseModel
from fedpace.lora.pooling import MeanPooledClassifier

ALL_LINEAR = "all-linear"
_ADAPTABLE = (nn.Linear, nn.Embedding, nn.Conv1d, nn.Conv2d, nn.Conv3d, Conv1D)
_READ_DIRECTLY = {
    kind: ("conv1d", "out_proj", "dt_proj", "x_proj") for kind in ("mamba", "falcon_mamba")
} | {kind: ("conv1d", "out_proj") for kind in ("mamba2", "falcon_h1", "nemotron_h")}
"""Modules whose weights the architecture (or its fused kernel) reads past their forward pass."""

_log = logging.getLogger(__name__)


def find_targets(
    base: BaseModel, requested: Sequence[str] | str | None, *, rank: int, whole: Iterable[str] = ()
) -> list[str] | str:
    """Choose the modules to adapt; PEFT itself is silent where only some of the names exist.

    Args:
        base: the model, not yet adapted.
        requested: module names or their ends; a regular expression that a module's full name
            must match; "all-linear"; None for PEFT's default of the architecture, and where it has
            none for "all-linear", which a line of the log says.
        rank: r; "all-linear" leaves out what is narrower, and says so.
        whole: modules that are trained whole (the new head among them) and not adapted.

    Returns:
        What PEFT's `target_modules` is to be.

    Raises:
        InputError: a target does not exist or cannot be adapted.
    """
    modules = {
        name: module
        for name, module in base.model.named_modules()
        if name and not any(_within(name, x) for x in (*base.new_modules, *whole))
    }
    kind = base.model.config.model_type
    adaptable = {n for n, m in modules.items() if isinstance(m, _ADAPTABLE)}
    adaptable -= {n for n in adaptable if n.rpartition(".")[2] in _READ_DIRECTLY.get(kind, ())}
    names = sorted({name.rpartition(".")[2] for name in adaptable})
    listed = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    if requested is None:
        requested = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING.get(kind)
        if requested is None:
            found = _all_linear(base, modules, adaptable, rank)
            _log.warning(
                "PEFT has no default target modules for %s: all linear layers but the head are "
                "adapted (%s)",
                kind,
                ", ".join(sorted({name.rpartition(".")[2] for name in found})),
            )
            return found
    if not requested:
        raise InputError(f"lora.target_modules is empty; name some of: {listed}")
    if isinstance(requested, str) and requested.lower() == ALL_LINEAR:
        return _all_linear(base, modules, adaptable, rank)
    for target in [requested] if isinstance(requested, str) else requested:
        matches = _expression(target) if isinstance(requested, str) else _end(target)
        found = [name for name in modules if matches(name)]
        if not found:
            what = f"module that matches {target!r}" if isinstance(requested, str) else "module "
            what += "" if isinstance(requested, str) else f'"{target}"'
            raise InputError(
                f'lora.target_modules: model "{base.name}" has no {what} to adapt; it has {listed}'
            )
        for name in found:
            if name not in adaptable:
                raise InputError(
                    f"lora.target_modules {target!r}: {name} is a {type(modules[name]).__name__}, "
                    f"which cannot be adapted in {kind}; those that can are {listed}"
                )
    _tell_tied(base, modules, requested)
    return requested if isinstance(requested, str) else list(requested)


def _all_linear(
    base: BaseModel, modules: dict[str, nn.Module], adaptable: set[str], rank: int
) -> list[str]:
    """Every linear layer of the body, by its full name, that has room for the rank."""
    output = base.model.get_output_embeddings()
    body = base.model.base_model_prefix if base.task == "classification" else ""
    unread = f"{body}.pooler" if isinstance(base.model, MeanPooledClassifier) else None
    found, narrow = [], set()
    for name, module in modules.items():
        if name not in adaptable or module is output or not isinstance(module, nn.Linear | Conv1D):
            continue
        if (body and not _within(name, body)) or (unread and _within(name, unread)):
            continue
        if min(_widths(module)) < rank:
            narrow.add(name.rpartition(".")[2])
        else:
            found.append(name)
    if not found:
        raise InputError(
            f"lora.rank is {rank}; every linear layer of model {base.name} is narrower"
        )
    if narrow:
        _log.warning(
            "left out, being narrower than [lora] rank = %d: %s", rank, ", ".join(sorted(narrow))
        )
    return found


def _widths(module: nn.Linear | Conv1D) -> tuple[int, int]:
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    return module.nx, module.nf


def _within(name: str, module: str) -> bool:
    """Whether a full name is that of the module, or of one in it; the module's by its end."""
    return f".{module}." in f".{name}."


def _end(target: str) -> Callable[[str], bool]:
    return lambda name: name == target or name.endswith("." + target)


def _expression(target: str) -> Callable[[str], bool]:
    try:
        pattern = re.compile(target)
    except re.error as error:
        raise InputError(
            f"lora.target_modules {target!r} is no regular expression: {error}; a single module "
            f'is given as a list, ["name"]'
        ) from None
    return lambda name: pattern.fullmatch(name) is not None


def shared_with(model: nn.Module, name: str) -> str | None:
    """Return another module that has a parameter of this one as its own; None if there is none."""
    own = {id(p) for p in model.get_submodule(name).parameters()}
    for other, module in model.named_modules():
        if not _within(other, name) and own & {id(p) for p in module.parameters(recurse=False)}:
            return other
    return None


def _tell_tied(
    base: BaseModel, modules: dict[str, nn.Module], requested: Sequence[str] | str
) -> None:
    ends = [_expression(requested)] if isinstance(requested, str) else [_end(t) for t in requested]
    for name in modules:
        if any(matches(name) for matches in ends) and (other := shared_with(base.model, name)):
            _log.warning(
                "%s shares its weight with %s, and the adapter is added to %s alone: merged into "
                "the base weights it would change both, which is another model",
                name,
                other,
                name,
            )
