"""Whose a run folder is: made for one run, written by one process at a time.

A folder is made before anything slow is done, so no two runs take the same one. While a process
writes it, it holds a lock on the file `.lock`, which names the process. The lock ends with the
process, however that ends.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from fedpace.core.errors import InputError
from fedpace.run_folder.schema import EXPERIMENT, LOCK

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]
    import msvcrt


_OF_A_KILLED_CLAIM = {LOCK, f"{EXPERIMENT}.part"}
"""What a process can leave that is killed before the folder is a run's."""


@contextmanager
def new_folder(out: Path | None, parent: Path) -> Iterator[Path]:
    """Make a folder for a run and hold it; what fails before the folder has content removes it.

    Args:
        out: the folder, which must not exist or be empty; None takes the first of parent/1,
            parent/2, ... that does not exist.
        parent: of folders that are numbered.

    Raises:
        InputError: it exists and is not empty, is in use, or cannot be made.
    """
    above = _missing(parent if out is None else out.parent)
    try:
        folder, ours = _numbered(parent) if out is None else _named(out)
    except OSError as error:
        where = error.filename or out or parent
        raise InputError(
            f"{where} cannot be made ({error.strerror}); name another folder with --out"
        ) from None
    try:
        with held(folder):
            if {path.name for path in folder.iterdir()} - _OF_A_KILLED_CLAIM:
                raise InputError(
                    f"{folder} exists and is not empty; name another folder with --out, or go on "
                    f"with --resume {folder}"
                )
            yield folder
    finally:
        _unmake([folder, *above] if ours else [])


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a run folder while something is written into it.

    Raises:
        InputError: another process holds it, or it cannot be written.
    """
    path = folder / LOCK
    try:
        file = _locked(path)
    except OSError as error:
        raise InputError(
            f"{folder} cannot be written ({error.strerror}); make it writable, or copy it to "
            "where you can write"
        ) from None
    with file:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        try:
            yield
        finally:
            with suppress(OSError):  # Windows removes no open file
                path.unlink()


def _named(folder: Path) -> tuple[Path, bool]:
    """Return the folder, and whether it was made here."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; name a folder with --out")
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder.mkdir()
    except FileExistsError:
        return folder, False
    return folder, True


def _numbered(parent: Path) -> tuple[Path, bool]:
    parent.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        with suppress(FileExistsError):
            (parent / str(number)).mkdir()  # one of two that try has it
            return parent / str(number), True
        number += 1


def _missing(folder: Path) -> list[Path]:
    """Return the folder and those above it that do not exist, the deepest first."""
    missing = []
    while not folder.exists() and folder != folder.parent:
        missing.append(folder)
        folder = folder.parent
    return missing


def _unmake(made: list[Path]) -> None:
    """Remove folders that were made, as far as nothing is in them."""
    for folder in made:
        with suppress(OSError):
            if [path.name for path in folder.iterdir()] == [LOCK]:
                (folder / LOCK).unlink()
            folder.rmdir()


def _locked(path: Path) -> IO[str]:
    """Return the file, locked."""
    while True:
        file = path.open("a+", encoding="utf-8")
        try:
            if fcntl is None:
                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
            else:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            with file:
                file.seek(0)
                holder = file.read().strip() or "another process"
            raise InputError(
                f"{path.parent} is in use by {holder}; wait until it has ended, or name another "
                "folder"
            ) from None
        # Who held it may have removed it after it was opened here: then it guards nothing.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()
