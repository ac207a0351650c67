"""Which split of a source is trained on, which is evaluated on, and which files are not used."""

import re
from collections.abc import Collection, Iterable
from pathlib import Path

from fedpace.core.errors import InputError
from fedpace.core.text_files import listed
from fedpace.data.files import format_of

TRAIN = ("train", "training")
EVAL = ("test", "testing", "validation", "valid", "val", "dev", "development", "eval", "evaluation")
"""Which split is evaluated on where none is named: the first of these that is there."""

_NO_DATA = {"meta.json", "dataset_infos.json", "dataset_dict.json", "license", "licence"}


def find(splits: Iterable[str], words: Iterable[str]) -> str | None:
    """Return the first of the words that is a split, as the source spells it; case is ignored.

    Example:
        >>> find(["Train", "VAL"], EVAL)
        'VAL'
    """
    spelt = {name.lower(): name for name in splits}
    return next((spelt[word.lower()] for word in words if word.lower() in spelt), None)


def train_split(splits: Collection[str], name: str) -> str:
    """Return the split to train on: "train" or "training", or the only one.

    Raises:
        InputError: there are several, and none of that name.
    """
    found = find(splits, TRAIN)
    if found is not None:
        return found
    if only_evaluates(splits):
        [split] = splits
        raise InputError(
            f"[data] {name} has only {split!r}, which is to evaluate on; bring the training data, "
            "or name the file itself if it is that",
            public=f"only {split!r} among its data, which is to evaluate on",
        )
    if len(splits) == 1:
        return next(iter(splits))
    raise InputError(
        f"[data] name = {name!r} has no 'train' among {listed(splits)}; name the file to train on",
        public=f"{len(splits)} splits and none is 'train'",
    )


def only_evaluates(splits: Collection[str]) -> bool:
    """Say whether there is nothing but one split to evaluate on.

    Example:
        >>> only_evaluates(["Test"]), only_evaluates(["mine"]), only_evaluates(["train", "test"])
        (True, False, False)
    """
    return len(splits) == 1 and find(splits, EVAL) is not None


def files_by_split(folder: Path) -> dict[str, list[Path]]:
    """Group data files by stem; shards of one split (train-00000-of-00002) go together.

    Raises:
        InputError: no data files, or two of one split in different formats.
    """
    found: dict[str, list[Path]] = {}
    for path in _files(folder):
        if format_of(path):
            found.setdefault(_stem(path), []).append(path)
    if not found:
        what = "no data file here (.jsonl, .csv, .parquet, .txt)"
        others = [path.name for path in sorted(folder.iterdir()) if not _is_no_data(path)]
        seen = f"; there is {listed(others, 5)}" if others else ""
        raise InputError(f"[data] {folder}: {what}{seen}", public=what)
    by_word: dict[str, list[Path]] = {}
    for stem, paths in found.items():
        by_word.setdefault(stem.lower(), []).extend(paths)
    for stem, paths in by_word.items():
        if len({path.name.split(".")[0].lower() for path in paths}) < len(paths):
            names = listed(path.name for path in paths)
            raise InputError(
                f"[data] {folder}: {names} are all {stem!r}; keep one of them",
                public=f"{len(paths)} files of one split",
            )
    return found


def unused(folder: Path, used: Collection[Path]) -> list[str]:
    """Return the names of what lies in a folder, could be data, and is not among the files used."""
    read = {path.resolve() for path in used}
    return [
        path.name + "/" * path.is_dir()
        for path in sorted(folder.iterdir())
        if path.resolve() not in read and not _is_no_data(path)
    ]


def _files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.is_file()]


def _stem(path: Path) -> str:
    return re.sub(r"-\d+-of-\d+$", "", path.name.split(".")[0])


def _is_no_data(path: Path) -> bool:
    """Whether a file beside data says something of them, or is hidden."""
    name = path.name.lower()
    return name.startswith((".", "readme", "_")) or name.endswith(".md") or name in _NO_DATA
