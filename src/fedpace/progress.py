"""What a person sees while a run goes on: a bar per method, a line per evaluation."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from fedpace.core.record import RoundRecord
from fedpace.experiment.methods import method_named
from fedpace.reporting.units import seconds_text


class RunProgress:
    """A context manager; give its `show` to `fedpace.run`."""

    def __init__(self, console: Console) -> None:
        self._bars: dict[str, int] = {}
        self._progress = Progress(
            TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"), TimeElapsedColumn(), console=console, transient=True,
        )  # fmt: skip
        self._loading = self._progress.add_task("loading model and data", total=None, unit="")

    def __enter__(self) -> "RunProgress":
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def show(self, record: RoundRecord, rounds: int) -> None:
        """Move the method's bar towards `rounds`; print the evaluation, if there is one."""
        word = "round"
        if record.underway is not None:  # of a server that does not wait
            word = "beat" if method_named(record.method).asynchronous is None else "step"
        if record.method not in self._bars:
            self._progress.update(self._loading, visible=False)
            bar = self._progress.add_task(record.method, total=rounds, unit=f"{word}s")
            self._bars[record.method] = bar
        self._progress.update(self._bars[record.method], completed=record.round + 1)
        if record.diverged is not None:
            back = record.stepped_back_to
            then = "" if back is None else f"; back to the adapter of {word} {back}"
            self.note(f"{record.method} diverged at {word} {record.round + 1}: "
                      f"{record.diverged}{then}")  # fmt: skip
        elif record.evaluation is not None:
            numbers = "  ".join(f"{name} {v:.4f}" for name, v in record.evaluation.items())
            self._progress.console.print(
                f"{record.method:<12} {word:>5} {record.round + 1:>4}  "
                f"{seconds_text(record.clock_seconds):>12} on the clock  {numbers}",
            )

    def note(self, text: str) -> None:
        """Print a line that is to stay."""
        self._progress.console.print(text, soft_wrap=True)


@contextmanager
def counted(console: Console, doing: str) -> Iterator[Callable[[str, int, int], None]]:
    """Show a bar and a line for each thing finished; call what is given with (what, done, of)."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as progress:
        bar = progress.add_task(doing, total=None)

        def show(what: str, done: int, total: int) -> None:
            progress.update(bar, completed=done, total=total)
            progress.console.print(f"{done}/{total} {what}")

        yield show
