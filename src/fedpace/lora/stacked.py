r"""Local training of all participants of a round together, equal to the loop.

The base model is frozen and the same for everyone, so the rows of all clients' mini-batches can
go through it together; only in the LoRA layers and the task head does a row meet its own
client's tensors. These are stacked, A as (C, w, d_in) and B as (C, d_out, w), and each row takes
those of its owner for a batched product. As rows need not stay beside others of their client,
they are grouped by length (`grouping`), which saves the padding that separate clients need, and
a client with few examples needs no filler.

Of a client's r components, the chosen come first in the stack. A residual sketch sees all: w is r,
and after each step those not chosen are put back. Other sketches see the chosen alone: w is the
largest k, and a smaller client's surplus has the factor 0.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from peft.tuners.lora import LoraLayer
from peft.utils import ModulesToSaveWrapper
from torch import Tensor
from torch.func import functional_call

from fedpace.core.adapter import Components, TensorSpec
from fedpace.core.messages import ClientTask, ClientUpdate
from fedpace.lora.adapter import ADAPTER_NAME, AdaptedModel, factor_names, to_array, to_tensors
from fedpace.lora.checkpointing import checkpointing
from fedpace.lora.dropout import Masks
from fedpace.lora.grouping import group_by_length
from fedpace.lora.local_training import ClientExamples, LocalTraining, examples_of
from fedpace.lora.merged import merged_into_base
from fedpace.lora.sketch import chosen_first, component_scale
from fedpace.lora.tasks import collate, concatenate, row_scores
from fedpace.lora.tokens import Integers


@dataclass(slots=True, eq=False)
class _Stack:
    """The tensors of C clients, and whose rows are in the model at the moment."""

    components: list[Components]
    scale: Tensor
    """Factor of each component in the forward pass, shape (C, w)."""
    chosen: Tensor
    """Which of the w components a client trains, shape (C, w)."""
    start: dict[str, Tensor]
    current: dict[str, Tensor]
    """Those that are trained require a gradient."""
    owner: Tensor
    """Client of each row in the model, ascending, shape (rows,)."""
    rows_of_client: list[int]
    """Its counts, shape (C,)."""
    masks: Masks
    """What of the input of each A is dropped."""


def train_stacked(
    adapted: AdaptedModel,
    clients: ClientExamples,
    training: LocalTraining,
    max_tokens: int,
    tasks: Sequence[ClientTask],
) -> list[ClientUpdate]:
    """Train participants of a round together.

    Args:
        adapted: the model.
        clients: each client's examples.
        training: what a client does in a round.
        max_tokens: most tokens, padding included, that go through the model at once.
        tasks: of one round, or of several; each takes the memory of an adapter.

    Returns:
        The updates in the order of the tasks; those of `train_loop` up to rounding.
    """
    if not tasks:
        return []
    examples = [examples_of(clients, task) for task in tasks]
    batches = [training.draw_batches(t, e) for t, e in zip(tasks, examples, strict=True)]
    stack = _stack(adapted, training, tasks)
    optimizer = training.make_optimizer(x for x in stack.current.values() if x.requires_grad)
    losses = torch.zeros(len(tasks), device=adapted.device)
    with (
        merged_into_base(adapted, *(task.adapter for task in tasks)),
        _owners_meet_their_rows(adapted, stack),
        checkpointing(adapted, training.gradient_checkpointing),
    ):
        for step in range(training.local_steps):
            drawn = concatenate([e.take(b[step]) for e, b in zip(examples, batches, strict=True)])
            counts = [len(b[step]) for b in batches]
            owner = np.repeat(np.arange(len(tasks)), counts)
            row = np.concatenate([np.arange(count) for count in counts])
            # A client's loss is a mean over its own targets, wherever its rows are.
            weight = torch.from_numpy((1.0 / np.bincount(owner, drawn.targets))[owner]).float()
            optimizer.zero_grad()
            for rows in group_by_length(drawn.lengths, max_tokens):
                _set_owner(stack, owner[rows], adapted.device)
                whose = [(tasks[owner[i]], step, int(row[i])) for i in rows]
                stack.masks.now(whose, drawn.lengths[rows])
                batch = collate(drawn.take(rows), adapted)
                logits = adapted.model(**batch.inputs).logits
                row_losses = row_scores(logits, batch)[0] * weight[rows].to(logits.device)
                row_losses.sum().backward()
                losses.index_add_(0, stack.owner, row_losses.detach())
            optimizer.step()
            _restore_others(adapted, stack)
    mean_losses = (losses / training.local_steps).tolist()
    return [
        ClientUpdate(
            task.client, task.round_index, stack.components[c], _delta(adapted, stack, c), loss
        )
        for c, (task, loss) in enumerate(zip(tasks, mean_losses, strict=True))
    ]


def _stack(adapted: AdaptedModel, training: LocalTraining, tasks: Sequence[ClientTask]) -> _Stack:
    rank, device = adapted.layout.rank, adapted.device
    components = [training.sketch.components(task, rank) for task in tasks]
    sizes = np.array([len(c) for c in components])
    width = rank if training.sketch.whole else int(sizes.max())
    order = [torch.from_numpy(chosen_first(c, rank)[:width]).to(device) for c in components]
    chosen = np.arange(width) < sizes[:, None]
    scale = np.array([component_scale(training.sketch, adapted, k) for k in sizes])[:, None]
    seen = np.ones_like(chosen) if training.sketch.whole else chosen

    wholes: dict[int, dict[str, Tensor]] = {}
    for task in tasks:  # the same adapter for all, as a rule: copy it to the device once
        if id(task.adapter) not in wholes:
            wholes[id(task.adapter)] = to_tensors(adapted, task.adapter)

    def stacked(spec: TensorSpec) -> Tensor:
        own = [wholes[id(task.adapter)][spec.name] for task in tasks]
        if spec.rank_axis is not None:
            own = [x.index_select(spec.rank_axis, o) for x, o in zip(own, order, strict=True)]
        return torch.stack(own)

    start = {spec.name: stacked(spec) for spec in adapted.layout.tensors}
    return _Stack(
        components=components,
        scale=torch.tensor(scale * seen, dtype=torch.float32, device=device),
        chosen=torch.from_numpy(chosen).to(device),
        start=start,
        current={
            t.name: start[t.name].clone().requires_grad_(t.role in training.trained)
            for t in adapted.layout.tensors
        },
        owner=torch.empty(0, dtype=torch.int64),
        rows_of_client=[],
        masks=Masks(training.dropout),
    )


def _set_owner(stack: _Stack, owner: Integers, device: torch.device) -> None:
    stack.owner = torch.from_numpy(owner).to(device)
    stack.rows_of_client = np.bincount(owner, minlength=len(stack.components)).tolist()


@torch.no_grad()
def _restore_others(adapted: AdaptedModel, stack: _Stack) -> None:
    """Put back the components that a client does not train; the step moved the whole stack."""
    for spec in adapted.layout.tensors:
        if spec.rank_axis is not None:
            value, start = stack.current[spec.name], stack.start[spec.name]
            value.copy_(torch.where(_along(stack.chosen, spec), value, start))


def _along(per_component: Tensor, spec: TensorSpec) -> Tensor:
    """Shape (C, w) as (C, w, 1) for A, (C, 1, w) for B."""
    return per_component.unsqueeze(2 if spec.role == "A" else 1)


def _delta(adapted: AdaptedModel, stack: _Stack, client: int) -> dict[str, np.ndarray]:
    size = len(stack.components[client])
    delta = {}
    for spec in adapted.layout.tensors:
        if not stack.current[spec.name].requires_grad:
            continue
        moved = stack.current[spec.name][client] - stack.start[spec.name][client]
        if spec.rank_axis is not None:
            moved = moved.narrow(spec.rank_axis, 0, size)
        delta[spec.name] = to_array(moved)
    return delta


@contextmanager
def _owners_meet_their_rows(adapted: AdaptedModel, stack: _Stack) -> Iterator[None]:
    """Let the LoRA layers and the head use the stack; afterwards they are PEFT's again."""
    patched = []
    try:
        for module, (name, layer) in enumerate(adapted.lora_modules.items()):
            layer.forward = _lora_forward(module, name, layer, stack)
            patched.append(layer)
        for name, head in adapted.head_modules.items():
            head.forward = _head_forward(name, head, stack)
            patched.append(head)
        yield
    finally:
        for module in patched:
            del module.forward  # the instance's; the class's shows again


def _lora_forward(module: int, name: str, layer: LoraLayer, stack: _Stack) -> Callable[..., Tensor]:
    a_name, b_name = factor_names(name, layer)

    def forward(x: Tensor, *args: object, **kwargs: object) -> Tensor:
        result = layer.base_layer(x, *args, **kwargs)
        owner = stack.owner
        a = stack.current[a_name].index_select(0, owner)  # (rows, w, d_in)
        b = stack.current[b_name].index_select(0, owner)  # (rows, d_out, w)
        scale = stack.scale.index_select(0, owner).unsqueeze(1)  # (rows, 1, w)
        seen = stack.masks.drop(x.to(a.dtype), module)
        rows = seen.reshape(len(owner), -1, x.shape[-1])
        hidden = torch.bmm(rows, a.transpose(1, 2)) * scale
        update = torch.bmm(hidden, b.transpose(1, 2)).reshape(result.shape)
        return (result + update).to(result.dtype)

    return forward


def _head_forward(name: str, head: ModulesToSaveWrapper, stack: _Stack) -> Callable[..., Tensor]:
    inner = head.modules_to_save[ADAPTER_NAME]
    names = {
        key: f"{name}.modules_to_save.{ADAPTER_NAME}.{key}" for key, _ in inner.named_parameters()
    }

    def forward(*args: object, **kwargs: object) -> Tensor:
        own = {key: stack.current[full].unbind(0) for key, full in names.items()}
        counts = stack.rows_of_client
        inputs = [_split(value, counts) for value in args]
        options = {key: _split(value, counts) for key, value in kwargs.items()}
        outputs = [
            functional_call(
                inner,
                {key: values[c] for key, values in own.items()},
                tuple(value[c] for value in inputs),
                {key: value[c] for key, value in options.items()},
                tie_weights=False,
            )
            for c in range(len(counts))
            if counts[c]
        ]
        return torch.cat(outputs)

    return forward


def _split(value: object, counts: list[int]) -> Sequence[object]:
    """Each client's rows of a tensor; anything else goes to all of them."""
    if isinstance(value, Tensor) and value.dim() and value.shape[0] == sum(counts):
        return value.split(counts)
    return [value] * len(counts)
