"""Data sets of the Hugging Face hub, through the `datasets` package."""

from collections.abc import Iterator, Sequence
from typing import Any

from fedpace.core.errors import InputError, MissingExtraError
from fedpace.core.hub import hub_answers, offline
from fedpace.data.files import Row


def load_hub(name: str) -> dict[str, Any]:
    """Return the splits of a hub data set.

    Args:
        name: "owner/name", or "owner/name:config" where the data set has several configurations.

    Returns:
        Split name to a `datasets.Dataset`.

    Raises:
        InputError: the data set cannot be had: no network, no such name, a configuration missing.
        MissingExtraError: `datasets` is not installed.
    """
    try:
        import datasets
    except ImportError:
        raise MissingExtraError("datasets", "lora") from None
    path, _, config = name.partition(":")
    try:
        with offline(not hub_answers()):
            splits: dict[str, Any] = datasets.load_dataset(path, config or None)
    except Exception as error:  # whatever the hub's client raises, the remedy is the same
        reason = str(error).strip().split("\n")[0]
        raise InputError(
            f"[data] name = {name!r}: no such file or folder here, and the hub does not give it "
            f"({type(error).__name__}: {reason}); check the name and the network, or name a local "
            "file or folder",
            public="its data set is not there",
        ) from error
    return splits


def hub_rows(splits: dict[str, Any], name: str, split: str) -> Iterator[Row]:
    """Yield the rows of one split, each with its place "name[split]: row i"."""
    for number, row in enumerate(splits[split], start=1):
        yield f"{name}[{split}]: row {number}", row


def hub_label_names(splits: dict[str, Any], split: str) -> Sequence[str] | None:
    """Return the class names that the data set states for its column "label", if it does."""
    return getattr(splits[split].features.get("label"), "names", None)
