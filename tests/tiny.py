"""A model and a data set small enough to train in a test, made on the spot, real in every part."""

import json

import numpy as np

WORDS = [f"w{i}" for i in range(40)]


def write_model(folder, seed=0, width=16):
    """A two-layer BERT of that width with a word tokenizer, as save_pretrained writes it."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]",
        cls_token="[CLS]", sep_token="[SEP]",
    ).save_pretrained(folder)  # fmt: skip
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=width, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=24, max_position_embeddings=32,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        BertModel(config).save_pretrained(folder)
    return folder


def write_examples(path, count=120, seed=0):
    """Three classes, each with words of its own among common ones."""
    rng = np.random.default_rng(seed)
    with path.open("w") as file:
        for i in range(count):
            label = i % 3
            own = rng.choice(WORDS[label * 5 : label * 5 + 5], size=3)
            common = rng.choice(WORDS[15:], size=3)
            text = " ".join(rng.permutation([*own, *common]))
            file.write(json.dumps({"text": text, "label": f"class {label}"}) + "\n")
    return path


EXPERIMENT = """
methods = ["adaptive", "uniform"]
[model]
name = "model"
max_length = 12
[data]
name = "train.jsonl"
eval = "test.jsonl"
partition = "dirichlet"
alpha = 1.0
clients = 6
[lora]
rank = 4
alpha = 8.0
[training]
schedule = "synchronous"
local_steps = 2
batch_size = 4
learning_rate = 0.1
server_learning_rate = 0.02
rounds = 6
eval_every = 2
[network]
bandwidth_hz = 1e5
[planner]
replan_every = 3
"""


def write_experiment(folder, text=EXPERIMENT):
    """A folder with model, data and experiment.toml; returns the path of the last."""
    write_model(folder / "model")
    write_examples(folder / "train.jsonl")
    write_examples(folder / "test.jsonl", count=30, seed=1)
    path = folder / "my.toml"
    path.write_text(text)
    return path
