"""LoRA training of real models: the only room that imports torch, transformers and PEFT.

Arrays in dictionaries cross its door in both directions. The face, in the order of use::

    base = load_base("minilm", task="classification", num_labels=6)
    adapted = attach_adapter(base, rank=16, alpha=16)        # .layout, .initial
    clients = [tokenise(examples, base, max_length=64) for examples in shards]
    train = make_trainer(adapted, clients, LocalTraining())  # tasks -> updates
    evaluate(adapted, adapter, held_out)                     # {"loss": ..., "accuracy": ...}
    save_adapter(adapted, adapter, folder)                   # PEFT's format

The base's own dropout is off in training as well. That of the adapter (`dropout`) has masks from a
named stream of each client, so that they do not depend on who else trains in the same pass.

Importing this room sets ``OMP_WAIT_POLICY=PASSIVE`` unless it is set (see `_openmp`).
"""

from fedpace.core.errors import MissingExtraError
from fedpace.lora import _openmp as _openmp

try:
    import peft as _peft  # noqa: F401
    import torch as _torch  # noqa: F401
    import transformers as _transformers  # noqa: F401
except ModuleNotFoundError as error:
    raise MissingExtraError(str(error.name), "lora") from error

from fedpace.lora.adapter import AdaptedModel, attach_adapter, read_adapter
from fedpace.lora.evaluation import evaluate
from fedpace.lora.local_training import LocalTraining
from fedpace.lora.loop import train_client
from fedpace.lora.model import BaseModel, load_base
from fedpace.lora.saving import save_adapter
from fedpace.lora.tokens import TokenisedExamples, tokenise
from fedpace.lora.trainer import make_trainer

__all__ = [
    "AdaptedModel",
    "BaseModel",
    "LocalTraining",
    "TokenisedExamples",
    "attach_adapter",
    "evaluate",
    "load_base",
    "make_trainer",
    "read_adapter",
    "save_adapter",
    "tokenise",
    "train_client",
]
