"""FedScale's device file: how fast clients compute and send, as a pickle.

Lai et al., "FedScale: Benchmarking Model and System Performance of Federated Learning at Scale",
ICML 2022: ``client_device_capacity``, a pickled dictionary {client: {"computation": milliseconds of
inference a sample, "communication": kbit/s}}.

A pickle is a program. This one may build dictionaries, lists, numbers and texts and nothing else:
its operations are read one by one before any of them is done.
"""

import pickle
import pickletools
from io import BytesIO
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from fedpace.core.errors import InputError
from fedpace.core.profile import Clients
from fedpace.core.rng import rng_for
from fedpace.core.text_files import shortened

__all__ = ["read_fedscale"]

_MOST_BYTES = 1 << 26
"""A longer file is no such file; half a million clients take 15 to 33 MB."""
_LARGEST_INTEGER = 1 << 60
_TRAINING = 3.0
"""Time of a training step over that of inference: FedScale's augmentation_factor."""
_HARMLESS = frozenset({
    "PROTO", "FRAME", "STOP", "MARK",
    "DICT", "EMPTY_DICT", "SETITEM", "SETITEMS", "LIST", "EMPTY_LIST", "APPEND", "APPENDS",
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING",
    "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
    "GET", "BINGET", "LONG_BINGET", "PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE",
})  # fmt: skip
"""What makes dictionaries, lists, numbers and texts. No tuples: as a key nested ones take the stack
or for ever to hash."""
_WANTED = 'give a pickled {client: {"computation": ms a sample, "communication": kbit/s}}'


def read_fedscale(
    path: Path, *, batch_size: int = 4, clients: int | None = None, seed: int = 0
) -> Clients:
    """Read devices and uplinks of real users.

    A local step takes 3 x `batch_size` x computation, as in FedScale. The uplink is the client's
    own: an efficiency of 1 bit/s/Hz and a `max_bandwidth_hz` of its rate, so that the band that
    clients share is the server's line. Data weights are equal: the file has none.

    Args:
        path: of the pickle.
        batch_size: samples in a local step.
        clients: take so many of them, drawn without replacement; by default all.
        seed: of that draw, stream "population".

    Returns:
        The clients, in the order of the file, named by its keys.

    Raises:
        InputError: it cannot be read, is no such file, or does anything else than hold numbers.
    """
    table = _loaded(path)
    if not isinstance(table, dict) or not table:
        raise InputError(f"{path}: not a dictionary of clients; {_WANTED}")
    keys = list(table)
    if clients is not None:
        if not 1 <= clients <= len(keys):
            raise InputError(f"{path} has {len(keys)} clients; take 1 to so many, not {clients}")
        # Purposes below 100 belong to drawn devices and links.
        chosen = rng_for(seed, "population", 104).choice(len(keys), clients, replace=False)
        keys = [keys[i] for i in np.sort(chosen)]
    each = [_client(path, key, table[key]) for key in keys]
    milliseconds, kilobits = np.transpose(each)
    return Clients.from_columns(
        client_id=[str(key) for key in keys],
        data_weight=np.ones(len(keys)),
        step_seconds=_TRAINING * batch_size * milliseconds / 1e3,
        spectral_efficiency=np.ones(len(keys)),
        max_bandwidth_hz=1e3 * kilobits,
    )


class _Plain(pickle.Unpickler):
    """Builds what the language has itself."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def _loaded(path: Path) -> Any:
    try:
        with path.open("rb") as stream:
            data = stream.read(_MOST_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); {_WANTED}") from None
    if len(data) > _MOST_BYTES:
        raise InputError(f"{path}: longer than {_MOST_BYTES >> 20} MiB; {_WANTED}")
    try:
        _check(path, data)
        return _Plain(BytesIO(data)).load()
    except InputError:
        raise
    # Whatever a broken pickle raises; what it may do is checked above.
    except Exception as error:
        raise InputError(f"{path}: no pickle ({shortened(str(error))}); {_WANTED}") from None


def _check(path: Path, data: bytes) -> None:
    """Refuse a pickle that does anything but build plain values, before it does anything."""
    for operation, argument, place in pickletools.genops(data):
        name, where = operation.name, f"{path}, byte {place}"
        if name not in _HARMLESS:
            raise InputError(
                f"{where}: {name} makes more than numbers, texts, lists and dictionaries; nothing "
                f"of it was run; {_WANTED}"
            )
        # An index of the memo is a size of memory, and integers can be made to collide.
        if not isinstance(argument, int):
            continue
        if name.endswith("PUT") and argument > len(data):
            raise InputError(f"{where}: {name} {argument} is beyond the file; {_WANTED}")
        if abs(argument) > _LARGEST_INTEGER:
            raise InputError(f"{where}: an integer above 2^60; {_WANTED}")


def _client(path: Path, key: Any, value: Any) -> tuple[float, float]:
    if not isinstance(key, int | str):
        raise InputError(f"{path}: a client is called by a {type(key).__name__}; {_WANTED}")
    where = f"{path}: client {shortened(key)}"
    if not isinstance(value, dict):
        raise InputError(f"{where} is a {type(value).__name__}; {_WANTED}")
    found = []
    for name in ("computation", "communication"):
        number = value.get(name)
        if isinstance(number, bool) or not isinstance(number, int | float) or not 0 < number < 1e12:
            raise InputError(f"{where}: {name} is {shortened(number)}; it must be a number above 0")
        found.append(float(number))
    return found[0], found[1]
