"""Models, tokenizer and data of a few thousand numbers; everything the tests train."""

from copy import deepcopy
from dataclasses import replace
from functools import cache

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from fedpace.core.examples import Examples
from fedpace.core.messages import ClientTask
from fedpace.lora import LocalTraining, attach_adapter, load_base, tokenise
from fedpace.lora.tasks import draw_batches

WORDS = [f"w{i}" for i in range(30)]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "</s>"]
_SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
_WIDE = {**_SMALL, "intermediate_size": 24, "max_position_embeddings": 40}
ARCHITECTURES = {
    "bert": (transformers.BertModel, transformers.BertConfig(**_WIDE)),
    "roberta": (transformers.RobertaModel, transformers.RobertaConfig(**_WIDE, pad_token_id=0)),
    "distilbert": (
        transformers.DistilBertModel,
        transformers.DistilBertConfig(
            dim=16, n_layers=2, n_heads=2, hidden_dim=24, max_position_embeddings=40
        ),
    ),
    "gpt2": (
        transformers.GPT2LMHeadModel,
        transformers.GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=40),
    ),
    "llama": (
        transformers.LlamaForCausalLM,
        transformers.LlamaConfig(**_WIDE, num_key_value_heads=1),
    ),
    "qwen3": (
        transformers.Qwen3ForCausalLM,
        transformers.Qwen3Config(**_WIDE, num_key_value_heads=1, head_dim=8),
    ),
}
DECODERS = ("gpt2", "llama", "qwen3")


def write(architecture, folder):
    """Write model and tokenizer; decoders get neither padding token nor segment ids."""
    write_model(
        *ARCHITECTURES[architecture], folder,
        decoder=architecture in DECODERS, segments=architecture == "bert",
    )  # fmt: skip


def write_model(kind, config, folder, *, decoder, segments=False, end="[SEP]"):
    """Write a model of random weights, and its tokenizer, which puts `end` after a text."""
    vocabulary = {word: i for i, word in enumerate(SPECIAL + WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    options = {"unk_token": "[UNK]", "eos_token": "</s>"}
    if not decoder:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"[CLS] $A {end}",
            pair=f"[CLS] $A {end} $B:1 {end}:1",
            special_tokens=[("[CLS]", 2), (end, vocabulary[end])],
        )
        options |= {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
        names = ["input_ids", "attention_mask"]
        options["model_input_names"] = names + ["token_type_ids"] * segments
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **options).save_pretrained(
        folder
    )
    config.vocab_size = len(vocabulary)
    config.bos_token_id, config.eos_token_id = None, 4
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = kind(config)
        for name, value in model.named_parameters():
            if value.dim() > 1:  # larger than usual, so that what is trained shows in the loss
                torch.nn.init.normal_(value, std=0.3)
            elif name.endswith("bias"):
                torch.nn.init.normal_(value, std=0.1)
        model.save_pretrained(folder)


def text(rng, words):
    return " ".join(rng.choice(WORDS, size=words))


def labelled(count, seed=0, *, pair=False, low=3, high=12):
    """`count` texts of 3 to 11 words in three classes."""
    rng = np.random.default_rng(seed)
    first = tuple(text(rng, rng.integers(low, high)) for _ in range(count))
    second = tuple(text(rng, rng.integers(low, high)) for _ in range(count)) if pair else None
    label = rng.integers(0, 3, count)
    return Examples("pair" if pair else "single", first, second, label=label)


def instructions(count, seed=0):
    rng = np.random.default_rng(seed)
    prompts = tuple(text(rng, rng.integers(2, 6)) for _ in range(count))
    responses = tuple(text(rng, rng.integers(1, 7)) for _ in range(count))
    return Examples("instruct", prompts, response=responses)


def adapted(folder, task="classification", *, rank=4, alpha=8.0, targets=None, **options):
    """A tiny model with LoRA layers, and an adapter for it as after some rounds."""
    words = None if targets is None else tuple(targets)
    model = deepcopy(_adapted(folder, task, rank, alpha, words, **options))
    return model, warm(model)


@cache
def _adapted(folder, task, rank, alpha, targets, **options):
    """Loaded and adapted once: a copy costs a tenth of that."""
    labels = 3 if task == "classification" else None
    base = load_base(folder, task=task, num_labels=labels, threads=1, **options)
    targets = None if targets is None else list(targets)
    return attach_adapter(base, rank=rank, alpha=alpha, target_modules=targets)


def warm(model, seed=1):
    """An adapter as after some rounds: while B is zero, A has no gradient."""
    rng = np.random.default_rng(seed)
    spread = {"A": 0.0, "B": 0.2, "head": 0.5}
    return {
        t.name: model.initial[t.name] + rng.normal(0, spread[t.role], t.shape).astype(np.float32)
        for t in model.layout.tensors
    }


def shards(model, sizes=(9, 3, 5, 1), *, pair=False):
    """Clients of uneven size."""
    clients = []
    for seed, size in enumerate(sizes):
        if model.base.task == "classification":
            examples = labelled(size, seed, pair=pair)
        else:
            examples = instructions(size, seed)
        clients.append(tokenise(examples, model.base, max_length=32))
    return clients


def tasks(adapter, ranks, *, round_index=0, seed=3):
    """One task per client, client n with sketch rank `ranks[n]`."""
    return [ClientTask(n, round_index, adapter, k, seed) for n, k in enumerate(ranks)]


STEPS = LocalTraining(local_steps=3, batch_size=4, learning_rate=0.05)
ADAMW = replace(STEPS, optimizer="adamw", learning_rate=0.01, weight_decay=0.1)


def batches_for(task, examples, training):
    """The rows that a client trains on, from the stream that is promised for them."""
    return draw_batches(
        task.seed,
        task.round_index,
        task.client,
        examples=len(examples),
        batch_size=training.batch_size,
        count=training.local_steps,
    )
