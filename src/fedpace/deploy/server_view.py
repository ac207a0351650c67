"""What a person sees of a run over the network, at the server."""

from collections.abc import Sequence

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from fedpace.core.plan import Plan
from fedpace.core.record import RoundRecord
from fedpace.deploy.live_panel import LivePanel
from fedpace.engines.flower.engine import RoundStatus
from fedpace.reporting.metrics import staleness
from fedpace.reporting.units import bits_text, seconds_text

ROWS = 8
"""Finished rounds in the table."""


class ServerView(LivePanel):
    """A live table on a terminal; a line a round where the output is a file."""

    def __init__(self, console: Console) -> None:
        self._records: list[RoundRecord] = []
        self._rounds, self._plan, self._state, self._said = 0, "", Text(""), ""
        self._refused, self._beats = 0, False
        self.names: Sequence[str] = ()
        """Names of the clients, by position; set when the run begins."""
        super().__init__(console)

    def say(self, text: str) -> None:
        """Say what is going on."""
        if self._lines and text != self._said:
            self._console.print(Text(text))
        self._said = text
        self._state = Text(text)

    def note(self, text: str) -> None:
        """Say what is to stay on the screen."""
        self._console.print(Text(text), soft_wrap=True)

    def show_plan(self, plan: Plan) -> None:
        """Show the plan of the next round."""
        text = _plan_text(plan)
        if self._lines and text != self._plan:
            self.note(text)
        self._plan, self._beats = text, plan.schedule == "overlapping"

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
        if status.underway is not None:
            text = f"{self._word} {status.round_index + 1}: {status.answered} updates have come, "
            text += f"{status.underway} clients are at work"
            if self._beats:
                text += f"; the next in {seconds_text(status.deadline_seconds)}"
        else:
            text = f"round {status.round_index + 1}: {status.answered} of "
            text += f"{status.invited - status.away} answered"
            if status.away:
                text += f", {status.away} of those chosen are away"
            text += f"; it waits {seconds_text(status.deadline_seconds)} at most"
        self._state = Text(text)

    def show_record(self, record: RoundRecord, rounds: int) -> None:
        """Show a finished round."""
        if self._records and self._records[-1].method != record.method:
            self._records = []
        self._records.append(record)
        self._rounds, self._state = rounds, Text("")
        for client, reason in record.refusals:
            self.note(f"{self._word} {record.round + 1}: {self._name(client)} refused: {reason}")
        for client in record.excluded:
            self.note(
                f"{self._word} {record.round + 1}: {self._name(client)} is excluded from the run: "
                f"refused too often ([checks] strikes), the last time for: "
                f"{dict(record.refusals).get(client, '')}"
            )
        for client, reason in record.failed:
            self.note(f"{self._word} {record.round + 1}: {self._name(client)} failed: {reason}")
        for answer in record.late:
            self.note(
                f"{self._word} {record.round + 1}: the answer of {self._name(answer.client)} to "
                f"{self._word} {answer.round + 1} came, after "
                f"{seconds_text(answer.start_seconds + answer.upload_seconds)}"
            )
        silent = set(record.missing) - {client for client, _ in record.failed}
        if silent:
            names = ", ".join(map(self._name, sorted(silent)))
            self.note(f"{self._word} {record.round + 1}: no answer from {names}")
        if record.diverged is not None:
            back = record.stepped_back_to
            then = "" if back is None else f"; back to the adapter of round {back}"
            self.note(f"{record.method} diverged at {self._word} {record.round + 1}: "
                      f"{record.diverged}{then}")  # fmt: skip
        if self._lines:
            evaluation = "".join(f"  {n} {v:.4f}" for n, v in (record.evaluation or {}).items())
            row = list(self._row(record).items())[1:]
            told = "".join(f"  {name} {value}" for name, value in row)
            self.note(f"{record.method} {self._word} {record.round + 1}/{rounds}{told}{evaluation}")

    def panel(self) -> Group:
        """Draw the last rounds, the plan, and what is going on."""
        parts: list[Table | Text] = []
        if self._records:
            last = self._records[-1]
            parts += [
                Text.assemble(
                    (last.method, "bold"), f", {self._word} {last.round + 1} of {self._rounds}"
                ),
                self._table(),
            ]
        return Group(*parts, Text(self._plan), self._state)

    def _table(self) -> Table:
        measured = list(dict.fromkeys(n for r in self._records for n in r.evaluation or ()))
        table = Table(box=None, pad_edge=False)
        for name in (*self._row(self._records[-1]), *measured):
            table.add_column(name, justify="right")
        for record in self._records[-ROWS:]:
            found = record.evaluation or {}
            values = (f"{found[name]:.4f}" if name in found else "" for name in measured)
            table.add_row(*self._row(record).values(), *values)
        return table

    @property
    def _word(self) -> str:
        return "beat" if self._beats else "round"

    def _row(self, record: RoundRecord) -> dict[str, str]:
        """Return what the table says of a step, by column."""
        people, late = record.participants, staleness([record])
        overhead = record.overhead_seconds
        row = {
            self._word: str(record.round + 1),
            "clock": seconds_text(record.clock_seconds),
            "took": seconds_text(record.round_seconds),
            "overhead": "–" if overhead is None else seconds_text(overhead),
        }
        if self._beats:
            row["counted"] = str(len(people))
            row["late"] = f"{late.mean():.1f}" if len(late) else "–"
            row["at work"] = str(record.underway or 0)
        else:
            invited = len(people) + len(record.missing) + len(record.refusals)
            slowest = max(people, key=lambda p: p.start_seconds + p.upload_seconds, default=None)
            row["answered"] = f"{len(people)}/{invited}"
            row["slowest"] = "–" if slowest is None else self._name(slowest.client)
        return {**row, "uplink": bits_text(record.upload_bits)}

    def _name(self, client: int) -> str:
        return self.names[client] if client < len(self.names) else str(client)


def _plan_text(plan: Plan) -> str:
    chance = plan.participation_probability()
    low, high = int(plan.sketch_rank.min()), int(plan.sketch_rank.max())
    ranks = f"rank {low}" if low == high else f"ranks {low} to {high}"
    if (counted := plan.updates_per_beat()) is not None:
        updates = counted.sum()
        text = f"plan: a beat every {seconds_text(plan.beat_seconds)}, {updates:.1f} updates a "
        text += f"beat of {len(plan)} clients, {ranks}"
        if plan.staleness_seconds is not None:
            text += f", counted {seconds_text(plan.staleness_seconds.mean)} after their start"
        return text
    text = f"plan: {chance.sum():.1f} of {len(plan)} clients a round, {ranks}"
    if plan.round_seconds is not None:
        seconds = plan.round_seconds
        text += f", {seconds_text(seconds.mean)} a round, 95 % within {seconds_text(seconds.p95)}"
    return text
