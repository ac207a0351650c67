"""Local training of one client after another: the readable reference.

`stacked` computes the same for all participants of a round at once.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fedpace.core.messages import ClientTask, ClientUpdate
from fedpace.lora.adapter import AdaptedModel, to_array, to_tensors
from fedpace.lora.checkpointing import checkpointing
from fedpace.lora.dropout import dropping
from fedpace.lora.local_training import ClientExamples, LocalTraining, examples_of
from fedpace.lora.merged import merged_into_base
from fedpace.lora.sketch import component_scale, lora_scaling
from fedpace.lora.tasks import Batch, collate, row_scores
from fedpace.lora.tokens import TokenisedExamples

Stepped = Callable[[int], None]
"""Called with the number of local steps that are done, by whoever shows progress."""


def train_loop(
    adapted: AdaptedModel,
    clients: ClientExamples,
    training: LocalTraining,
    tasks: Sequence[ClientTask],
    *,
    stepped: Stepped = lambda steps: None,
) -> list[ClientUpdate]:
    """Train the participants of a round one after another."""
    return [train_client(adapted, examples_of(clients, t), training, t, stepped) for t in tasks]


def train_client(
    adapted: AdaptedModel,
    examples: TokenisedExamples,
    training: LocalTraining,
    task: ClientTask,
    stepped: Stepped = lambda steps: None,
) -> ClientUpdate:
    """Train one client for a round: H steps on its k rows of A, columns of B, and the head.

    What `LocalTraining.trained` leaves out stays as it is and is not sent.

    Args:
        adapted: the model.
        examples: this client's.
        training: steps, batch, optimiser, sketch.
        task: which client and round, and the global adapter.
        stepped: called after each step.

    Returns:
        Local minus global of what it trained, and the mean of its H losses before each step.
    """
    components = training.sketch.components(task, adapted.layout.rank)
    chosen = torch.from_numpy(components).to(adapted.device)
    rank_axis = {t.name: t.rank_axis for t in adapted.layout.tensors}
    whole = to_tensors(adapted, task.adapter)
    start = {
        name: value if rank_axis[name] is None else value.index_select(rank_axis[name], chosen)
        for name, value in whole.items()
    }
    trained = {
        t.name: start[t.name].clone().requires_grad_()
        for t in adapted.layout.only(training.trained).tensors
    }

    def seen_by_the_model() -> dict[str, Tensor]:
        own = {**start, **trained}
        if not training.sketch.whole:  # an adapter of rank k
            return {f"model.{name}": value for name, value in own.items()}
        return {
            f"model.{name}": value
            if rank_axis[name] is None
            else whole[name].index_copy(rank_axis[name], chosen, value)
            for name, value in own.items()
        }

    optimizer = training.make_optimizer(trained.values())
    both_ways = _BothWays(adapted.model)
    losses = []
    scale = component_scale(training.sketch, adapted, task.sketch_rank)
    with (
        merged_into_base(adapted, task.adapter),
        lora_scaling(adapted, scale),
        checkpointing(adapted, training.gradient_checkpointing),
        dropping(adapted, training.dropout) as masks,
    ):
        for step, rows in enumerate(training.draw_batches(task, examples)):
            drawn = examples.take(rows)
            masks.now([(task, step, row) for row in range(len(rows))], drawn.lengths)
            batch = collate(drawn, adapted)
            optimizer.zero_grad()
            loss = functional_call(
                both_ways,
                seen_by_the_model(),
                (batch, int(drawn.targets.sum())),
                tie_weights=False,
            )
            optimizer.step()
            losses.append(loss.item())
            stepped(len(losses))
    delta = {name: to_array(value - start[name]) for name, value in trained.items()}
    return ClientUpdate(task.client, task.round_index, components, delta, sum(losses) / len(losses))


class _BothWays(nn.Module):
    """Forward and backward in one call, so that the client's tensors are in place for both.

    Layers that are computed again in the backward pass would find others there after it.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch, targets: int) -> Tensor:
        loss = row_scores(self.model(**batch.inputs).logits, batch)[0].sum() / targets
        loss.backward()
        return loss.detach()
