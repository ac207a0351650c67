"""LoRA by PEFT, and the adapter as named float32 arrays in both directions.

A and B are found by the type of PEFT's layers, never by their names, and every trainable tensor
must have a role: one that has none is an error, not a tensor left behind.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.utils import (
    TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING,
    ModulesToSaveWrapper,
)
from torch import nn
from transformers.pytorch_utils import Conv1D

from fedpace.core.adapter import Adapter, AdapterLayout, TensorSpec
from fedpace.core.errors import InputError
from fedpace.core.rng import rng_for
from fedpace.lora.model import BaseModel

ADAPTER_NAME = "default"
_TASK_TYPES = {"classification": TaskType.SEQ_CLS, "causal-lm": TaskType.CAUSAL_LM}


@dataclass(frozen=True, slots=True, eq=False)
class AdaptedModel:
    """A base model with LoRA layers: the frozen part that all clients share.

    Its own adapter parameters are scratch: training and evaluation put other tensors in their
    place for a call (`torch.func.functional_call`) and leave them as they are.
    """

    base: BaseModel
    model: PeftModel
    layout: AdapterLayout
    """Names are those of the model's parameters."""
    initial: Adapter
    """Round 0's global adapter, from the seed."""
    alpha: float
    lora_modules: dict[str, LoraLayer]
    head_modules: dict[str, ModulesToSaveWrapper]

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.base.model.device


def attach_adapter(
    base: BaseModel,
    *,
    rank: int,
    alpha: float,
    target_modules: list[str] | None = None,
    seed: int = 0,
) -> AdaptedModel:
    r"""Put LoRA layers into a base model: :math:`x \mapsto W_0 x + (\alpha/r)\, B A x`.

    A is drawn Kaiming-uniform and B is zero, as PEFT does (for embeddings the reverse: A zero, B
    normal), from the "adapter" stream of the seed. The base model is changed in place.

    Args:
        base: the model; one that has no adapter yet.
        rank: r, common to all modules.
        alpha: scaling numerator.
        target_modules: names of the modules to adapt, each a module's full name or its end, as
            PEFT reads them; None for PEFT's default of the architecture.
        seed: the run's seed.

    Returns:
        The adapted model with its layout and initial adapter.

    Raises:
        InputError: a target does not exist or cannot be adapted, or the rank does not fit.
    """
    if isinstance(base.model.base_model, PeftModel) or _has_lora(base.model):
        raise InputError(f'model "{base.name}" has an adapter already; load it anew')
    if rank < 1:
        raise InputError(f"lora.rank is {rank}; it must be at least 1")
    targets = _targets(base, target_modules)
    config = LoraConfig(
        task_type=_TASK_TYPES[base.task],
        r=rank,
        lora_alpha=alpha,
        target_modules=targets,
        lora_dropout=0.0,
        bias="none",
        modules_to_save=list(base.new_modules) or None,
        fan_in_fan_out=any(isinstance(m, Conv1D) for m in base.model.modules()),
    )
    # PEFT draws an initial adapter of its own from torch's global generator; it is replaced.
    with torch.random.fork_rng(devices=[]), known_warnings():
        try:
            model = get_peft_model(base.model, config)
        except (ValueError, NotImplementedError) as error:
            raise InputError(
                f"lora.target_modules {targets} of model {base.name}: {error}"
            ) from error
    model.eval()
    lora = {n: m for n, m in model.named_modules() if isinstance(m, LoraLayer)}
    heads = {n: m for n, m in model.named_modules() if isinstance(m, ModulesToSaveWrapper)}
    for head in heads.values():
        _keep_in_float32(head)
    layout = _layout(model, rank, lora, heads)
    model.requires_grad_(False)
    adapted = AdaptedModel(base, model, layout, {}, alpha, lora, heads)
    initial = _initial(layout, read_adapter(adapted), lora, seed)
    return AdaptedModel(base, model, layout, initial, alpha, lora, heads)


def read_adapter(adapted: AdaptedModel) -> dict[str, np.ndarray]:
    """Return the adapter that the model's own parameters hold."""
    parameters = dict(adapted.model.named_parameters())
    return {t.name: to_array(parameters[t.name]) for t in adapted.layout.tensors}


def write_adapter(adapted: AdaptedModel, adapter: Adapter) -> None:
    """Put an adapter into the model's own parameters."""
    parameters = dict(adapted.model.named_parameters())
    for name, value in to_tensors(adapted, adapter).items():
        parameters[name].data.copy_(value)


def to_tensors(adapted: AdaptedModel, adapter: Adapter) -> dict[str, torch.Tensor]:
    """Copy an adapter to the model's device.

    Raises:
        InputError: a tensor is missing or has another shape than the layout says.
    """
    tensors = {}
    for t in adapted.layout.tensors:
        if t.name not in adapter or adapter[t.name].shape != t.shape:
            found = adapter[t.name].shape if t.name in adapter else "missing"
            raise InputError(
                f"adapter tensor {t.name} is {found}, the model's is {t.shape}; "
                "the adapter was made for another model, rank or number of labels"
            )
        tensors[t.name] = torch.tensor(adapter[t.name], dtype=torch.float32, device=adapted.device)
    return tensors


def to_array(tensor: torch.Tensor) -> np.ndarray:
    """Copy a tensor into a float32 array of the host."""
    return tensor.detach().to("cpu", torch.float32, copy=True).numpy()


def _targets(base: BaseModel, requested: list[str] | None) -> list[str]:
    """The modules to adapt; PEFT itself is silent where only some of them exist."""
    known = sorted(
        {
            name.rpartition(".")[2]
            for name, module in base.model.named_modules()
            if any(value.dim() > 1 for value in module.parameters(recurse=False))
        }
    )
    listed = ", ".join(known[:12]) + (", ..." if len(known) > 12 else "")
    if requested is None:
        kind = base.model.config.model_type
        default = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING.get(kind)
        if default is None:
            raise InputError(
                f"lora.target_modules is not given and PEFT has no default for {kind}; "
                f"name some of: {listed}"
            )
        return default
    names = [name for name, _ in base.model.named_modules()]
    for target in requested:
        if not any(name == target or name.endswith("." + target) for name in names):
            raise InputError(
                f'lora.target_modules: model "{base.name}" has no module "{target}"; '
                f"it has {listed}"
            )
    if not requested:
        raise InputError(f"lora.target_modules is empty; name some of: {listed}")
    return list(requested)


def _layout(
    model: PeftModel,
    rank: int,
    lora: dict[str, LoraLayer],
    heads: dict[str, ModulesToSaveWrapper],
) -> AdapterLayout:
    """A and B of every LoRA layer, then the task head; nothing trainable may be left over."""
    parameters = dict(model.named_parameters())
    specs = []
    for name, layer in lora.items():
        a, b = factor_names(name, layer)
        a_shape, b_shape = tuple(parameters[a].shape), tuple(parameters[b].shape)
        if a_shape[0] != rank or b_shape[1] != rank:
            raise InputError(
                f"lora.target_modules: {name} is a {type(layer).__name__}, whose A {a_shape} and "
                f"B {b_shape} do not have the {rank} rank components along rows and columns"
            )
        limit = min(int(np.prod(a_shape[1:])), b_shape[0])
        if rank > limit:
            raise InputError(
                f"lora.rank is {rank}; module {name} allows at most {limit}, "
                "the smaller of its input and output widths"
            )
        specs += [TensorSpec(a, a_shape, "A"), TensorSpec(b, b_shape, "B")]
    for name, head in heads.items():
        inner = f"{name}.modules_to_save.{ADAPTER_NAME}"
        for key, value in head.modules_to_save[ADAPTER_NAME].named_parameters():
            specs.append(TensorSpec(f"{inner}.{key}", tuple(value.shape), "head"))
    trainable = {name for name, value in parameters.items() if value.requires_grad}
    if left_over := trainable ^ {t.name for t in specs}:
        raise InputError(f"the adapter has tensors without a role: {', '.join(sorted(left_over))}")
    return AdapterLayout(rank, tuple(specs))


def factor_names(name: str, layer: LoraLayer) -> tuple[str, str]:
    """Parameter names of A and B; an embedding holds them bare, other layers in modules."""
    if ADAPTER_NAME in layer.lora_A:
        return (
            f"{name}.lora_A.{ADAPTER_NAME}.weight",
            f"{name}.lora_B.{ADAPTER_NAME}.weight",
        )
    return (f"{name}.lora_embedding_A.{ADAPTER_NAME}", f"{name}.lora_embedding_B.{ADAPTER_NAME}")


def _initial(
    layout: AdapterLayout, loaded: Adapter, lora: dict[str, LoraLayer], seed: int
) -> dict[str, np.ndarray]:
    """Draw A and B in NumPy, so that the draw is the same on every device and torch version."""
    rng = rng_for(seed, "adapter", 1)  # without a key: the head, see `load_base`
    embeddings = {
        name
        for key, layer in lora.items()
        if ADAPTER_NAME in layer.lora_embedding_A
        for name in factor_names(key, layer)
    }
    initial = {}
    for t in layout.tensors:
        if t.role == "head":
            initial[t.name] = loaded[t.name]
        elif (t.role == "A") == (t.name in embeddings):
            initial[t.name] = np.zeros(t.shape, dtype=np.float32)
        elif t.role == "A":
            # Kaiming-uniform with a = sqrt(5): bound sqrt(6 / ((1 + 5) fan_in)).
            bound = np.prod(t.shape[1:]) ** -0.5
            initial[t.name] = rng.uniform(-bound, bound, t.shape).astype(np.float32)
        else:
            initial[t.name] = rng.standard_normal(t.shape).astype(np.float32)
    return initial


def _keep_in_float32(head: ModulesToSaveWrapper) -> None:
    """Train a head in float32 under a base of lower precision, where small steps would vanish."""
    inner = head.modules_to_save[ADAPTER_NAME].float()
    if next(head.original_module.parameters()).dtype != torch.float32:
        inner.register_forward_pre_hook(_cast_inputs)


def _cast_inputs(_: nn.Module, inputs: tuple) -> tuple:
    return tuple(
        x.float() if isinstance(x, torch.Tensor) and x.is_floating_point() else x for x in inputs
    )


def _has_lora(model: nn.Module) -> bool:
    return any(isinstance(module, LoraLayer) for module in model.modules())


@contextmanager
def known_warnings() -> Iterator[None]:
    """Hold back two warnings of PEFT's that say nothing to our user, and only those."""
    with warnings.catch_warnings():
        # It calls a method that transformers 5 renames.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated")
        # Linear and Conv1D targets in one model; PEFT sets the flag per layer by itself.
        warnings.filterwarnings("ignore", "fan_in_fan_out is set to")
        yield
