"""Training as anyone would write it with transformers and PEFT; nothing of fedpace in it."""

import torch
import transformers
from peft import LoraConfig, get_peft_model

CLASSES = {
    "SEQ_CLS": transformers.AutoModelForSequenceClassification,
    "CAUSAL_LM": transformers.AutoModelForCausalLM,
}
OPTIMIZERS = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}


def load(folder, task_type, rank, alpha, adapter, *, targets=None, modules_to_save=None):
    """A PEFT model that holds `adapter`."""
    options = {"num_labels": 3} if task_type == "SEQ_CLS" else {}
    model = CLASSES[task_type].from_pretrained(folder, **options)
    model.config.pad_token_id = 0
    config = LoraConfig(
        task_type=task_type,
        r=rank,
        lora_alpha=alpha,
        target_modules=targets,
        modules_to_save=modules_to_save,
        fan_in_fan_out=model.config.model_type == "gpt2",
    )
    model = get_peft_model(model, config).eval()
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in adapter.items():
            parameters[name].copy_(torch.from_numpy(value))
    return model


def texts(folder, examples, rows):
    """A padded batch straight from the tokenizer."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    first = [examples.text[i] for i in rows]
    second = None if examples.text_pair is None else [examples.text_pair[i] for i in rows]
    batch = tokenizer(first, second, padding=True, return_tensors="pt")
    return {**batch, "labels": torch.from_numpy(examples.label[rows])}


def train(model, batches, optimizer, *, components=None, **options):
    """One optimiser step a batch; returns the change of each trainable tensor, and the losses.

    With `components`, the gradient of every other row of A and column of B is dropped.
    """
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    before = {n: p.detach().clone() for n, p in trained.items()}
    optimizer = OPTIMIZERS[optimizer](trained.values(), **options)
    losses = []
    for batch in batches:
        loss = model(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        if components is not None:
            for name, p in trained.items():
                keep = torch.zeros_like(p)
                if "lora_A" in name:
                    keep[components] = 1
                elif "lora_B" in name:
                    keep[:, components] = 1
                else:
                    keep += 1
                p.grad *= keep
        optimizer.step()
        losses.append(loss.item())
    return {n: (p.detach() - before[n]).numpy() for n, p in trained.items()}, losses
