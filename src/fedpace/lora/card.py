"""What lies beside a saved adapter: how it is loaded, what its classes are, a base that fits it."""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from transformers.utils import cached_file

from fedpace.lora.adapter import AdaptedModel
from fedpace.run_folder.atomic import write_text

BASE = "base"
"""Folder beside the adapter: the base model's files, with the configuration of this classifier."""
_LINKED = ("*.safetensors", "*.bin", "*.index.json", "tokenizer*", "vocab*", "merges*",
           "special_tokens*", "*.model")  # fmt: skip


_MOVED = """
PEFT's automatic classes look for `base/` where it was written. After a move, these lines, run in
this folder, tell them where it is now; copy with `cp -rL` to take the base model's files along.

```python
import json
from pathlib import Path

file = Path("adapter_config.json")
moved = {"base_model_name_or_path": str(Path("base").resolve())}
file.write_text(json.dumps(json.loads(file.read_text()) | moved, indent=2))
```
"""


def describe_adapter(adapted: AdaptedModel, facts: Mapping[str, Any], folder: Path) -> None:
    """Write README.md beside a saved adapter, and for a classifier of the architecture a base.

    PEFT's automatic classes make a classifier from the base model's own configuration, which knows
    neither the number of the classes nor their names. So `base/` has the configuration that does,
    links to the base model's files, and the adapter names it as its base, by its full path: PEFT
    reads a relative one from where it is called. README.md has the lines that load the adapter
    wherever the folder is moved to, and those that correct the path.

    Args:
        adapted: the model that the adapter belongs to.
        facts: "name", "task", "label_names", "pooling", "layers", "max_length",
            "trust_remote_code".
        folder: where the adapter is, for good.
    """
    source = _source(adapted)
    linked = False
    if facts["task"] == "classification" and facts["pooling"] == "model" and source is not None:
        with suppress(OSError, NotImplementedError):  # where a system has no links
            _write_base(adapted, facts, source, folder / BASE)
            linked = True
    if linked:
        path = folder / "adapter_config.json"
        config = json.loads(path.read_text("utf-8"))
        config["base_model_name_or_path"] = str((folder / BASE).resolve())
        write_text(path, json.dumps(config, indent=2, sort_keys=True) + "\n")
    write_text(folder / "README.md", card(facts, _plain_name(adapted, source), folder, linked))


def card(facts: Mapping[str, Any], base: str, folder: Path, linked: bool) -> str:
    """Return README.md: what the adapter is, and the lines that load it.

    Args:
        facts: as for `describe_adapter`.
        base: the base model as Transformers finds it, a hub id or a path.
        folder: where the adapter is.
        linked: whether `base/` is beside it.
    """
    names = facts["label_names"]
    told = [
        f"- base model: {facts['name']}",
        f"- task: {facts['task']}",
        f"- longest input: {facts['max_length']} tokens",
    ]
    if names is not None:
        told.append(
            "- classes: " + ", ".join(f"{n} = {json.dumps(x)}" for n, x in enumerate(names))
        )
        told.append(f"- pooling: {facts['pooling']}")
    if facts["layers"]:
        told.append(f"- transformer layers: the first {facts['layers']}")
    return (
        "---\nlibrary_name: peft\n---\n\n# LoRA adapter made by FedPace\n\n"
        + "\n".join(told)
        + "\n\nThese lines load it, wherever this folder is copied to: run them in it. Where it was"
        " written they work from anywhere.\n\n```python\n"
        + "\n".join(_lines(facts, base, folder))
        + "\n```\n"
        + (_MOVED if linked else "")
    )


def _lines(facts: Mapping[str, Any], base: str, folder: Path) -> list[str]:
    names = facts["label_names"]
    here = ["# This folder: the one you are in, or else where it was written.",
            'folder = "." if Path("adapter_config.json").exists() else '
            f"{str(folder.resolve())!r}"]  # fmt: skip
    if facts["pooling"] == "mean" or facts["layers"]:
        options = {"task": facts["task"], "num_labels": None if names is None else len(names),
                   "pooling": facts["pooling"] or "model", "layers": facts["layers"],
                   "trust_remote_code": facts["trust_remote_code"] or None}  # fmt: skip
        given = ", ".join(f"{k}={v!r}" for k, v in options.items() if v is not None)
        lines = ["from pathlib import Path", "", "from fedpace.lora import load_base",
                 "from peft import PeftModel", "", *here,
                 f"base = load_base({facts['name']!r}, {given})",
                 "model = PeftModel.from_pretrained(base.model, folder).eval()",
                 "tokenizer = base.tokenizer"]  # fmt: skip
    else:
        own = ", trust_remote_code=True" if facts["trust_remote_code"] else ""
        kind = "AutoModelForCausalLM" if names is None else "AutoModelForSequenceClassification"
        labels = ", num_labels=len(label_names), id2label=dict(enumerate(label_names))"
        labels = labels if names is not None else ""
        lines = ["from pathlib import Path", "", "from peft import PeftModel",
                 f"from transformers import {kind}, AutoTokenizer", "", *here,
                 f"base = {kind}.from_pretrained({base!r}{labels}{own})",
                 "model = PeftModel.from_pretrained(base, folder).eval()",
                 f"tokenizer = AutoTokenizer.from_pretrained({base!r}{own})",
                 "if tokenizer.pad_token is None:",
                 "    tokenizer.pad_token = tokenizer.eos_token",
                 "base.config.pad_token_id = tokenizer.pad_token_id"]  # fmt: skip
    if names is not None:
        lines.insert(lines.index(here[0]), f"label_names = {list(names)!r}")
    return lines


def _plain_name(adapted: AdaptedModel, source: Path | None) -> str:
    """Return what Transformers finds the base model by: a hub id, or the folder of a local one."""
    name = str(adapted.model.get_base_model().config._name_or_path)
    return str(source) if source is not None and Path(name).is_dir() else name


def _source(adapted: AdaptedModel) -> Path | None:
    """Return the local folder of the base model's files; None where there is none."""
    name = adapted.model.get_base_model().config._name_or_path
    if Path(name).is_dir():
        return Path(name).resolve()
    try:
        found = cached_file(name, "config.json", local_files_only=True)
    except OSError:
        return None
    return None if found is None else Path(found).parent


def _write_base(
    adapted: AdaptedModel, facts: Mapping[str, Any], source: Path, folder: Path
) -> None:
    folder.mkdir(exist_ok=True)
    model = adapted.model.get_base_model()
    config = type(model.config).from_dict(model.config.to_dict())
    config.id2label = dict(enumerate(facts["label_names"]))
    config.label2id = {name: n for n, name in enumerate(facts["label_names"])}
    config.architectures = [type(model).__name__]
    config.save_pretrained(folder)
    for pattern in _LINKED:
        for file in source.glob(pattern):
            link = folder / file.name
            link.unlink(missing_ok=True)
            link.symlink_to(file.resolve())
