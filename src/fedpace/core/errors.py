"""The exceptions FedPace raises on purpose.

::

    FedPaceError
    ├── InputError (ValueError)     what was given is wrong; exit status 2
    ├── MissingExtraError           an optional part is not installed; exit status 2
    └── RunError (RuntimeError)     the run itself failed; exit status 1

Each message is one line: the value, the place it came from, and the remedy.
"""


class FedPaceError(Exception):
    """Base of every exception FedPace raises on purpose."""


class InputError(FedPaceError, ValueError):
    """Something the user gave is wrong: a value, a file, a combination."""


class MissingExtraError(FedPaceError, ImportError):
    """A part that was asked for needs an optional package that is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"this needs the package '{package}', which is not installed; "
            f"pip install 'fedpace[{extra}]'"
        )


class RunError(FedPaceError, RuntimeError):
    """The input was right, the run failed."""
