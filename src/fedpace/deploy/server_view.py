"""What a person sees of a run over the network, at the server."""

from collections.abc import Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from fedpace.core.plan import Plan
from fedpace.core.record import RoundRecord
from fedpace.engines.flower.engine import RoundStatus
from fedpace.reporting.units import bits_text, seconds_text

ROWS = 8
"""Finished rounds in the table."""


class ServerView:
    """A live table on a terminal; a line a round where the output is a file."""

    def __init__(self, console: Console) -> None:
        self._console, self._lines = console, not console.is_terminal
        self._live = Live(console=console, refresh_per_second=4, transient=False)
        self._records: list[RoundRecord] = []
        self._rounds, self._plan, self._state, self._said = 0, "", Text(""), ""
        self._refused = 0
        self.names: Sequence[str] = ()
        """Names of the clients, by position; set when the run begins."""

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
            self._console.print(Text(text))
        self._said = text
        self._state = Text(text)
        self._draw()

    def note(self, text: str) -> None:
        """Say what is to stay on the screen."""
        self._console.print(Text(text), soft_wrap=True)

    def show_plan(self, plan: Plan) -> None:
        """Show the plan of the next round."""
        text = _plan_text(plan)
        if self._lines and text != self._plan:
            self.note(text)
        self._plan = text
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
            self.note(f"refused {name}: {reason}")
        self._refused = len(refused)

    def show_newcomers(self, names: Sequence[str], new: int) -> None:
        """Show the names by position once the last `new` of them have entered the run."""
        self.names = names
        self.note(f"{', '.join(names[-new:])} entered the run; {len(names)} clients from now on")

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
        if self._records and self._records[-1].method != record.method:
            self._records = []
        self._records.append(record)
        self._rounds, self._state = rounds, Text("")
        for client, reason in record.refusals:
            self.note(f"round {record.round + 1}: {self._name(client)} refused: {reason}")
        for client in record.excluded:
            self.note(
                f"round {record.round + 1}: {self._name(client)} is excluded from the run: "
                f"refused too often ([checks] strikes), the last time for: "
                f"{dict(record.refusals).get(client, '')}"
            )
        for client, reason in record.failed:
            self.note(f"round {record.round + 1}: {self._name(client)} failed: {reason}")
        for answer in record.late:
            self.note(
                f"round {record.round + 1}: the answer of {self._name(answer.client)} to round "
                f"{answer.round + 1} came, after "
                f"{seconds_text(answer.start_seconds + answer.upload_seconds)}"
            )
        silent = set(record.missing) - {client for client, _ in record.failed}
        if silent:
            names = ", ".join(map(self._name, sorted(silent)))
            self.note(f"round {record.round + 1}: no answer from {names}")
        if record.diverged is not None:
            back = record.stepped_back_to
            then = "" if back is None else f"; back to the adapter of round {back}"
            self.note(f"{record.method} diverged at round {record.round + 1}: "
                      f"{record.diverged}{then}")  # fmt: skip
        if self._lines:
            row = self._row(record)
            evaluation = "".join(f"  {n} {v:.4f}" for n, v in (record.evaluation or {}).items())
            self.note(
                f"{record.method} round {record.round + 1}/{rounds}  "
                f"clock {row[1]}  took {row[2]}  overhead {row[3]}  answered {row[4]}  "
                f"slowest {row[5]}  up {row[6]}{evaluation}"
            )
        self._draw()

    def _draw(self) -> None:
        if self._lines:
            return
        parts: list[Table | Text] = []
        if self._records:
            last = self._records[-1]
            parts += [
                Text.assemble((last.method, "bold"), f", round {last.round + 1} of {self._rounds}"),
                self._table(),
            ]
        self._live.update(Group(*parts, Text(self._plan), self._state))

    def _table(self) -> Table:
        measured = list(dict.fromkeys(n for r in self._records for n in r.evaluation or ()))
        table = Table(box=None, pad_edge=False)
        head = ("round", "clock", "took", "overhead", "answered", "slowest", "uplink")
        for name in (*head, *measured):
            table.add_column(name, justify="right")
        for record in self._records[-ROWS:]:
            found = record.evaluation or {}
            values = (f"{found[name]:.4f}" if name in found else "" for name in measured)
            table.add_row(*self._row(record), *values)
        return table

    def _row(self, record: RoundRecord) -> list[str]:
        people = record.participants
        invited = len(people) + len(record.missing) + len(record.refusals)
        slowest = max(people, key=lambda p: p.start_seconds + p.upload_seconds, default=None)
        return [
            str(record.round + 1),
            seconds_text(record.clock_seconds),
            seconds_text(record.round_seconds),
            "–" if record.overhead_seconds is None else seconds_text(record.overhead_seconds),
            f"{len(people)}/{invited}",
            "–" if slowest is None else self._name(slowest.client),
            bits_text(record.upload_bits),
        ]

    def _name(self, client: int) -> str:
        return self.names[client] if client < len(self.names) else str(client)


def _plan_text(plan: Plan) -> str:
    chance = plan.participation_probability()
    low, high = int(plan.sketch_rank.min()), int(plan.sketch_rank.max())
    ranks = f"rank {low}" if low == high else f"ranks {low} to {high}"
    text = f"plan: {chance.sum():.1f} of {len(plan)} clients a round, {ranks}"
    if plan.round_seconds is not None:
        seconds = plan.round_seconds
        text += f", {seconds_text(seconds.mean)} a round, 95 % within {seconds_text(seconds.p95)}"
    return text
