"""What the two ends tell each other before they work together, and whether they fit."""

import hashlib
import importlib.metadata
from collections.abc import Mapping
from typing import Any

from fedpace.core.adapter import AdapterLayout
from fedpace.engines.flower.messages import PROTOCOL
from fedpace.experiment.config import Experiment
from fedpace.lora.adapter import AdaptedModel
from fedpace.lora.fingerprint import base_fingerprint


def versions() -> dict[str, str]:
    """Return the versions that must be the same at both ends."""
    return {name: importlib.metadata.version(name) for name in ("fedpace", "flwr")}


def make_offer(
    experiment: Experiment, adapted: AdaptedModel, labels: tuple[str, ...] | None, run: str
) -> dict[str, Any]:
    """Return what a server tells every client that comes.

    Args:
        experiment: what is run.
        adapted: the server's model.
        labels: class names in the order of their numbers.
        run: drawn anew for each run of a server.
    """
    return {
        "protocol": PROTOCOL,
        "versions": versions(),
        "run": run,
        "experiment": experiment.to_toml(),
        "labels": None if labels is None else list(labels),
        "base": base_fingerprint(adapted),
        "layout": layout_fingerprint(adapted.layout),
    }


def layout_fingerprint(layout: AdapterLayout) -> str:
    """Return a hash of names, shapes and order of the adapter's tensors."""
    return hashlib.sha256(repr(layout).encode()).hexdigest()


def version_objection(offer: Mapping[str, Any]) -> str | None:
    """Say why this client's software does not fit the server's."""
    theirs = offer.get("versions")
    theirs = theirs if isinstance(theirs, dict) else {}
    for name, ours in versions().items():
        if theirs.get(name) != ours:
            return (
                f"the server has {name} {theirs.get(name)}, this client {ours}; install the "
                f"server's here: pip install '{name}=={theirs.get(name)}'"
            )
    if offer.get("protocol") != PROTOCOL:
        return f"the server speaks protocol {offer.get('protocol')}, this client {PROTOCOL}"
    return None


def model_objection(offer: Mapping[str, Any], adapted: AdaptedModel, base: str) -> str | None:
    """Say why this client's model does not fit the server's; `base` is its weights' hash."""
    if offer.get("base") != base:
        return (
            f"the weights of model {adapted.base.name!r} differ from the server's; copy the "
            "server's model folder here and name it with --model, or clear the hub's cache"
        )
    if offer.get("layout") != layout_fingerprint(adapted.layout):
        return (
            f"the adapter of model {adapted.base.name!r} has other tensors than the server's; "
            "install the same transformers and peft at both ends"
        )
    return None
