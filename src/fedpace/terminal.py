"""What a person sees: names that users gave are shown as they are, and no sign fails a command."""

import sys
from io import TextIOWrapper
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from fedpace.core.errors import FedPaceError

if TYPE_CHECKING:
    from fedpace.experiment.run import RunRecord


def open_console(*, stderr: bool = False) -> Console:
    """Return a console that takes no text for markup, emoji or something to highlight.

    Names of clients, methods, files and classes are their users' and may hold square brackets,
    colons, anything. What is to be bold or coloured says so by a style.
    """
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def tolerate_encodings() -> None:
    """Have standard output show a sign that its encoding lacks as "?", not fail on it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")


def one_line(text: str) -> str:
    """Return a text without line breaks and other characters that move a terminal's cursor."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def show_outcome(record: "RunRecord", console: Console) -> None:
    """Write the report of a run, then show its table and where things are.

    Raises:
        FedPaceError: there is no report; what came of the run has been shown all the same.
    """
    from fedpace.reporting.report import write_report
    from fedpace.reporting.tables import summary_table

    report, fault = None, None
    try:
        report = write_report(record.folder)
    except FedPaceError as error:
        fault = error
    console.print(summary_table(record.summary))
    if report is not None:
        say(console, f"report:  {report}")
    say(console, f"adapter: {record.folder / 'adapter'}")
    if fault is not None:
        raise fault


def say(console: Console, text: str) -> None:
    """Print a line that is not wrapped: it may hold a path."""
    console.print(Text(one_line(text)), soft_wrap=True)
