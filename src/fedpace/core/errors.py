"""The exceptions FedPace raises on purpose.

::

    FedPaceError
    ├── InputError (ValueError)     what was given is wrong; exit status 2
    ├── MissingExtraError           an optional part is not installed; exit status 2
    └── RunError (RuntimeError)     the run itself failed; exit status 1

    KeyboardInterrupt
    └── Interrupted                 Ctrl-C in a run; exit status 130

Each message is one line: the value, the place it came from, and the remedy. That line is for
whoever gave the value. What may be told to somebody else, as a client tells its server, is the
error's `public` part alone: kinds and counts, never a value, a line or a path.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

_NO_PLACE = frozenset({
    errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.EROFS,
    errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL,
})  # fmt: skip
"""What the system says of a path that is the user's mistake; a full disk is none."""


class FedPaceError(Exception):
    """Base of every exception FedPace raises on purpose.

    Args:
        message: the line for whoever gave the value.
        public: what may be told to others; without it nothing but that there is an error.

    Example:
        >>> error = InputError("mine.csv:3: label is 'Ann Lee'", public="a label is no class")
        >>> str(error), error.public
        ("mine.csv:3: label is 'Ann Lee'", 'a label is no class')
        >>> InputError("mine.csv:3: label is 'Ann Lee'").public
        'its own screen says why'
    """

    def __init__(self, message: object = "", *, public: str = "its own screen says why") -> None:
        super().__init__(message)
        self.public = public


class InputError(FedPaceError, ValueError):
    """Something the user gave is wrong: a value, a file, a combination."""


class MissingExtraError(FedPaceError, ImportError):
    """A part that was asked for needs an optional package that is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        message = (
            f"this needs the package '{package}', which is not installed; "
            f"pip install 'fedpace[{extra}]'"
        )
        super().__init__(message, public=message)


class RunError(FedPaceError, RuntimeError):
    """The input was right, the run failed."""


class Interrupted(KeyboardInterrupt):
    """A run was interrupted; the message says how to go on with it."""


def described(error: OSError) -> str:
    """Return what the system says of a file or a connection, in one line that names the path."""
    path = "" if error.filename is None else f"{error.filename}: "
    return f"{path}{error.strerror or error}"


@contextmanager
def writing(option: str, path: object, remedy: str) -> Iterator[None]:
    """Say of what is written here by which option it was given, where that cannot be written.

    Args:
        option: as the user writes it, "--out".
        path: the value of that option.
        remedy: what to give in its place.

    Raises:
        InputError: the place is none to write to.
        OSError: what else goes wrong, as a full disk, as it came.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_PLACE:
            raise
        raise InputError(
            f"{option} {path} cannot be written ({error.strerror}); {remedy}"
        ) from None


def public_part(error: BaseException) -> str:
    """Return what may be told of an error to others: of a foreign one nothing but its type."""
    return error.public if isinstance(error, FedPaceError) else type(error).__name__
