"""What a person asks `fedpace run` or `fedpace serve` for: an experiment, and a run folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedpace.core.errors import InputError
from fedpace.experiment.config import Experiment, load_experiment
from fedpace.run_folder import schema


@dataclass(frozen=True, slots=True)
class Request:
    """What to run, and where."""

    path: Path | None = None
    """Experiment file; None: that of the folder to go on with, or the embedded default."""
    methods: Sequence[str] = ()
    """In place of the file's, where there are any."""
    overrides: Sequence[str] = ()
    """"section.key=value" texts."""
    out: Path | None = None
    """Folder to make; None: runs/1, runs/2, ..."""
    resume: Path | None = None
    """Folder to go on with."""

    def experiment(self) -> Experiment:
        """Read the experiment.

        Raises:
            InputError: it is wrong, or a folder to make and one to go on with are both given.
        """
        if self.resume is not None and self.out is not None:
            raise InputError(
                "--out and --resume exclude each other; a resumed run stays in its folder"
            )
        path = self.path
        if self.resume is not None and path is None:
            path = self.resume / schema.EXPERIMENT
        experiment = load_experiment(path, self.overrides)
        if self.methods:
            experiment = experiment.model_copy(update={"methods": list(self.methods)})
        return experiment


def difference(one: Experiment, two: Experiment) -> str:
    """Name the first key in which two experiments differ."""
    a, b = one.model_dump(), two.model_dump()
    for section in a:
        if a[section] == b[section]:
            continue
        if not isinstance(a[section], dict):
            return f"{section} is {a[section]!r} there and {b[section]!r} here"
        key = next(k for k in a[section] if a[section][k] != b[section][k])
        return f"[{section}] {key} is {a[section][key]!r} there and {b[section][key]!r} here"
    return "no key differs"
