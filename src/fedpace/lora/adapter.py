"""LoRA by PEFT, and the adapter as named float32 arrays in both directions.

A and B are found by the type of PEFT's layers, never by their names, and every trainable tensor
must have a role: one that has none is an error, not a tensor left behind.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.utils import ModulesToSaveWrapper
from torch import nn
from transformers.pytorch_utils import Conv1D

from fedpace.core.adapter import Adapter, AdapterLayout, TensorSpec
from fedpace.core.errors import InputError
from fedpace.core.rng import rng_for
from fedpace.lora.model import BaseModel
from fedpace.lora.targets import find_targets, shared_with

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
    """What is trained whole: the new task head, and `modules_to_save`."""
    rslora: bool = False

    @property
    def scale(self) -> float:
        r"""Factor of B A in the forward pass: alpha/r; rank-stabilised :math:`\alpha/\sqrt r`."""
        return self.alpha / (self.layout.rank**0.5 if self.rslora else self.layout.rank)

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.base.model.device


def attach_adapter(
    base: BaseModel,
    *,
    rank: int,
    alpha: float,
    target_modules: Sequence[str] | str | None = None,
    modules_to_save: Sequence[str] = (),
    use_rslora: bool = False,
    init_lora_weights: bool | str = True,
    dropout: float = 0.0,
    seed: int = 0,
) -> AdaptedModel:
    r"""Put LoRA layers into a base model: :math:`x \mapsto W_0 x + (\alpha/r)\, B A x`.

    A is drawn Kaiming-uniform and B is zero, as PEFT does (for embeddings the reverse: A zero, B
    normal), from the "adapter" stream of the seed. The base model is changed in place.

    Args:
        base: the model; one that has no adapter yet.
        rank: r, common to all modules.
        alpha: scaling numerator.
        target_modules: names of the modules to adapt, each a module's full name or its end, a
            regular expression or "all-linear", as PEFT reads them; None for PEFT's default of the
            architecture, or else "all-linear".
        modules_to_save: names of further modules, which are trained and sent whole.
        use_rslora: multiply by :math:`\alpha/\sqrt r` (arXiv 2312.03732) in place of alpha/r.
        init_lora_weights: True, or "gaussian": A normal with standard deviation 1/r.
        dropout: what is written into the adapter's configuration; training has its own masks.
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
    _check_initialisation(init_lora_weights)
    _check_whole(base, modules_to_save)
    targets = find_targets(base, target_modules, rank=rank, whole=modules_to_save)
    config = LoraConfig(
        task_type=_TASK_TYPES[base.task],
        r=rank,
        lora_alpha=alpha,
        target_modules=targets,
        lora_dropout=dropout,
        bias="none",
        use_rslora=use_rslora,
        modules_to_save=[*base.new_modules, *modules_to_save] or None,
        fan_in_fan_out=any(isinstance(m, Conv1D) for m in base.model.modules()),
    )
    # PEFT draws an initial adapter of its own from torch's global generator; it is replaced.
    with torch.random.fork_rng(devices=[]), known_warnings():
        try:
            model = get_peft_model(base.model, config)
        except (ValueError, NotImplementedError) as error:
            raise InputError(
                f"lora.target_modules of model {base.name}: {' '.join(str(error).split())}"
            ) from error
    model.eval()
    lora = {n: m for n, m in model.named_modules() if isinstance(m, LoraLayer)}
    heads = {n: m for n, m in model.named_modules() if isinstance(m, ModulesToSaveWrapper)}
    for name, head in heads.items():
        inner = name.removeprefix("base_model.model.")
        _keep_in_float32(head, last=any(_is(inner, x) for x in base.new_modules))
    layout = _layout(model, rank, lora, heads)
    model.requires_grad_(False)
    adapted = AdaptedModel(base, model, layout, {}, alpha, lora, heads, use_rslora)
    gaussian = init_lora_weights == "gaussian"
    initial = _initial(layout, read_adapter(adapted), lora, seed, gaussian=gaussian)
    return replace(adapted, initial=initial)


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


def _check_initialisation(init: bool | str) -> None:
    if init is True or init == "gaussian":
        return
    if init is False:
        reason = "B would be random, so that the first round began from a changed model"
    else:
        reason = "only draws that leave the base model as it is, alike for every client"
    raise InputError(
        f'lora.init_lora_weights = {init!r} is refused ({reason}); use true or "gaussian"'
    )


def _check_whole(base: BaseModel, modules: Sequence[str]) -> None:
    known = {n: m for n, m in base.model.named_modules() if next(m.parameters(), None) is not None}
    for module in modules:
        found = [name for name in known if name and _is(name, module)]
        if not found:
            ends = sorted({name.rpartition(".")[2] for name in known if name} - {""})
            listed = ", ".join(x for x in ends if not x.isdecimal())
            raise InputError(
                f'lora.modules_to_save: model "{base.name}" has no module "{module}" with '
                f"parameters; it has {listed}"
            )
        for name in found:
            if other := shared_with(base.model, name):
                raise InputError(
                    f"lora.modules_to_save: {name} shares its weight with {other}, and trained "
                    "whole the two would come apart; leave it out, or adapt it by target_modules"
                )


def _is(name: str, module: str) -> bool:
    return name == module or name.endswith("." + module)


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
    layout: AdapterLayout,
    loaded: Adapter,
    lora: dict[str, LoraLayer],
    seed: int,
    *,
    gaussian: bool,
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
        elif t.role == "A" and gaussian:
            initial[t.name] = rng.normal(0.0, 1 / layout.rank, t.shape).astype(np.float32)
        elif t.role == "A":
            # Kaiming-uniform with a = sqrt(5): bound sqrt(6 / ((1 + 5) fan_in)).
            bound = np.prod(t.shape[1:]) ** -0.5
            initial[t.name] = rng.uniform(-bound, bound, t.shape).astype(np.float32)
        else:
            initial[t.name] = rng.standard_normal(t.shape).astype(np.float32)
    return initial


def _keep_in_float32(head: ModulesToSaveWrapper, *, last: bool) -> None:
    """Train a head in float32 under a base of lower precision, where small steps would vanish."""
    inner = head.modules_to_save[ADAPTER_NAME].float()
    dtype = next(head.original_module.parameters()).dtype
    if dtype != torch.float32:
        inner.register_forward_pre_hook(_cast_inputs)
        if not last:  # what follows computes in the precision of the base
            inner.register_forward_hook(lambda _module, _inputs, output: _as(output, dtype))


def _as(output: object, dtype: torch.dtype) -> object:
    return output.to(dtype) if isinstance(output, torch.Tensor) else output


def _cast_inputs(_: nn.Module, inputs: tuple) -> tuple:
    return tuple(
        x.float() if isinstance(x, torch.Tensor) and x.is_floating_point() else x for x in inputs
    )


def _has_lora(model: nn.Module) -> bool:
    return any(isinstance(module, LoraLayer) for module in model.modules())


@contextmanager
def known_warnings() -> Iterator[None]:
    """Hold back warnings of PEFT's that say nothing new to our user, and only those."""
    with warnings.catch_warnings():
        # It calls a method that transformers 5 renames.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated")
        # Linear and Conv1D targets in one model; PEFT sets the flag per layer by itself.
        warnings.filterwarnings("ignore", "fan_in_fan_out is set to")
        # Said by `find_targets`, with the names.
        warnings.filterwarnings("ignore", "Model has `tie_word_embeddings=True` and a tied layer")
        yield
