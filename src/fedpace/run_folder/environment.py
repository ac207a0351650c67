"""With what a result was computed."""

import importlib.metadata
import platform


def environment() -> dict[str, str]:
    """Return Python, machine and versions."""
    packages = ("fedpace", "numpy", "scipy", "torch", "transformers", "peft")
    return {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        **{name: importlib.metadata.version(name) for name in packages},
    }
