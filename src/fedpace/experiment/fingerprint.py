"""What a resumed run must find again, as hashes."""

import hashlib
from collections.abc import Sequence

import numpy as np

from fedpace.core.examples import Examples
from fedpace.lora import AdaptedModel
from fedpace.lora.fingerprint import base_fingerprint
from fedpace.lora.tokens import TokenisedExamples

__all__ = ["work_fingerprint"]


def work_fingerprint(
    adapted: AdaptedModel,
    data: Sequence[Examples],
    shares: Sequence[np.ndarray] = (),
    tokens: Sequence[TokenisedExamples] = (),
) -> dict[str, str]:
    """Return a hash of each thing that a resumed run must find again.

    The population is not among them: clients.csv holds it.
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
    return {
        "examples": examples.hexdigest(),
        "shares of the clients": dealt.hexdigest(),
        "tokens of the examples": tokenised.hexdigest(),
        "adapter tensors": hashlib.sha256(repr(adapted.layout).encode()).hexdigest(),
        "base weights": base_fingerprint(adapted),
    }
