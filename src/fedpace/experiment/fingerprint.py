"""What a resumed run must find again, as hashes: by what was read, not by the names of files."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fedpace.core.examples import Examples
from fedpace.lora import AdaptedModel
from fedpace.lora.fingerprint import base_fingerprint
from fedpace.lora.model import model_folder
from fedpace.lora.tokens import TokenisedExamples
from fedpace.wireless.gains import Gains, TraceGains

__all__ = ["work_fingerprint"]

_OF_NO_EFFECT = ("transformers_version", "_name_or_path")
"""What a model's config.json says of who wrote it, and where."""


def work_fingerprint(
    adapted: AdaptedModel,
    data: Sequence[Examples],
    shares: Sequence[np.ndarray] = (),
    tokens: Sequence[TokenisedExamples] = (),
    *,
    evaluated: TokenisedExamples,
    gains: Gains | None = None,
    started: bool = False,
) -> dict[str, str]:
    """Return a hash of each thing that a resumed run must find again.

    The population is not among them: clients.csv holds it. A part that is new here is not asked of
    the folders of earlier versions (`checkpoint.read_progress`), so each thing that is added needs
    a name of its own.

    Args:
        adapted: the model with its initial adapter.
        data: examples, as read.
        shares: which of them each client has.
        tokens: the clients' examples as token ids.
        evaluated: what is evaluated on, as token ids.
        gains: how the links change within a round.
        started: the initial adapter is one that was read ([lora] start_from).
    """
    examples, dealt, tokenised = hashlib.sha256(), hashlib.sha256(), hashlib.sha256()
    for each in data:
        for column in (each.text, each.text_pair, each.response, each.turns):
            examples.update(repr(column).encode())
        examples.update(repr(None if each.label is None else each.label.tolist()).encode())
        examples.update(repr(each.label_names).encode())
    for share in shares:
        dealt.update(share.astype("<i8").tobytes() + b"|")
    for each in tokens:
        for ids in each.tokens:
            tokenised.update(ids.astype("<i8").tobytes() + b"|")
    held_out = hashlib.sha256()
    for ids in (*evaluated.tokens, *evaluated.labels):
        held_out.update(ids.astype("<i8").tobytes() + b"|")
    return {
        "examples": examples.hexdigest(),
        "shares of the clients": dealt.hexdigest(),
        "tokens of the examples": tokenised.hexdigest(),
        "adapter tensors": hashlib.sha256(repr(adapted.layout).encode()).hexdigest(),
        "base weights": base_fingerprint(adapted),
        "tokens of the held-out examples": held_out.hexdigest(),
        "values of the initial adapter": _initial(adapted, started=started),
        **_model_files(model_folder(adapted.base.name)),
        **_trace(gains),
    }


def _initial(adapted: AdaptedModel, *, started: bool) -> str:
    """Hash where the adapter begins: what start_from holds, and a head that the model brings."""
    digest = hashlib.sha256()
    # torch draws a new head from the seed, on another processor to other last bits.
    drawn = () if started else adapted.base.new_modules
    for t in adapted.layout.tensors:
        if not any(f".{module}." in t.name for module in drawn):
            digest.update(t.name.encode() + adapted.initial[t.name].astype("<f4").tobytes())
    return digest.hexdigest()


def _model_files(folder: Path | None) -> dict[str, str]:
    """Hash what says in a model's folder how its weights are used: config.json, Python files."""
    if folder is None:
        return {}
    stated = json.loads((folder / "config.json").read_text("utf-8"))
    said = {key: value for key, value in stated.items() if key not in _OF_NO_EFFECT}
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    for code in sorted(folder.glob("*.py")) if "auto_map" in stated else ():
        digest.update(code.name.encode() + code.read_bytes())
    return {"configuration of the model": digest.hexdigest()}


def _trace(gains: Gains | None) -> dict[str, str]:
    """Hash the recorded rate that links follow; empty without one."""
    if not isinstance(gains, TraceGains):
        return {}
    trace, digest = gains.trace, hashlib.sha256()
    for column in (trace.seconds, trace.gain, np.array([trace.length_seconds])):
        digest.update(column.astype("<f8").tobytes())
    return {"rates of the gain_trace": digest.hexdigest()}
