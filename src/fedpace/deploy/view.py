"""What a person sees of a run over the network, at the server."""

from collections.abc import Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from fedpace.core.record import RoundRecord
from fedpace.engines.flower import RoundStatus
from fedpace.reporting.units import bits_text, seconds_text

ROWS = 8
"""Finished rounds in the table."""


class ServerView:
    """A live table on a terminal; a line a round where the output is a file."""

    def __init__(self, console: Console) -> None:
        self._console, self._lines = console, not console.is_terminal
        self._live = Live(console=console, refresh_per_second=4, transient=False)
        self._records: list[RoundRecord] = []
        self._accuracy, self._state, self._said = "", Text(""), ""
        self._refused = 0
        self.names: Sequence[str] = ()
        """Of the clients, by position; set when the run begins."""

    def __enter__(self) -> "ServerView":
        if not self._lines:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if not self._lines:
            self._live.stop()

    def say(self, text: str) -> None:
        """Say what is going on."""
        if self._lines and text != self._said:
            self._console.print(escape(text), highlight=False)
        self._said = text
        self._state = Text(text)
        self._draw()

    def show_arrivals(
        self, there: Sequence[str], wanted: int, refused: Sequence[tuple[str, str]]
    ) -> None:
        """Show who has come before the run begins."""
        self.show_refused(refused)
        last = f", the last {there[-1]}" if there else ""
        self.say(f"{len(there)} of {wanted} clients are there{last}")

    def show_refused(self, refused: Sequence[tuple[str, str]]) -> None:
        """Show who could not take part, each once."""
        for name, reason in refused[self._refused :]:
            self._print(f"refused {name}: {reason}")
        self._refused = len(refused)

    def show_newcomers(self, names: Sequence[str], new: int) -> None:
        """Show the names by position once the last `new` of them have entered the run."""
        self.names = names
        self._print(f"{', '.join(names[-new:])} entered the run; {len(names)} clients from now on")

    def show_status(self, status: RoundStatus) -> None:
        """Show a round on its way."""
        text = (
            f"round {status.round_index + 1}: {status.answered} of "
            f"{status.invited - status.away} answered"
        )
        if status.away:
            text += f", {status.away} of those chosen are away"
        self._state = Text(f"{text}; it waits {seconds_text(status.deadline_seconds)} at most")
        self._draw()

    def show_record(self, record: RoundRecord, rounds: int) -> None:
        """Show a finished round."""
        self._records.append(record)
        if record.evaluation is not None:
            self._accuracy = "  ".join(f"{name} {v:.4f}" for name, v in record.evaluation.items())
        for client, reason in record.refusals:
            self._print(f"round {record.round + 1}: {self._name(client)} refused: {reason}")
        if self._lines:
            row = self._row(record)
            evaluation = f"  {self._accuracy}" if record.evaluation is not None else ""
            self._console.print(
                f"{escape(record.method)} round {record.round + 1}/{rounds}  "
                f"clock {row[1]}  took {row[2]}  answered {row[3]}  slowest {row[4]}  up {row[5]}"
                f"{evaluation}",
                highlight=False, soft_wrap=True,
            )  # fmt: skip
        self._draw()

    def _print(self, text: str) -> None:
        self._console.print(escape(text), highlight=False, soft_wrap=True)

    def _draw(self) -> None:
        if self._lines:
            return
        table = Table(box=None, pad_edge=False)
        for name in ("round", "clock", "took", "answered", "slowest", "uplink"):
            table.add_column(name, justify="right")
        for record in self._records[-ROWS:]:
            table.add_row(*self._row(record))
        parts: list[Table | Text] = [table] if self._records else []
        if self._accuracy:
            parts.append(Text(self._accuracy))
        self._live.update(Group(*parts, self._state))

    def _row(self, record: RoundRecord) -> list[str]:
        people = record.participants
        invited = len(people) + len(record.missing) + len(record.refusals)
        slowest = max(people, key=lambda p: p.start_seconds + p.upload_seconds, default=None)
        return [
            str(record.round + 1),
            seconds_text(record.clock_seconds),
            seconds_text(record.round_seconds),
            f"{len(people)}/{invited}",
            "–" if slowest is None else self._name(slowest.client),
            bits_text(record.upload_bits),
        ]

    def _name(self, client: int) -> str:
        return self.names[client] if client < len(self.names) else str(client)
