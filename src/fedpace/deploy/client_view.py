"""What a person sees of a client: a panel on a terminal, lines where the output is a file."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from rich.console import Console
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fedpace.deploy.live_panel import LivePanel
from fedpace.reporting.units import bits_text, rate_text

WIDTH = 64
"""Columns of the panel."""


@dataclass(frozen=True, slots=True)
class ClientStatus:
    """What a client knows of its part in a run."""

    state: Literal["waiting", "training", "sending"] = "waiting"
    round_index: int | None = None
    """Round of its last task; None before the first."""
    sketch_rank: int = 0
    rank: int = 0
    step: int = 0
    """Local steps done."""
    steps: int = 0
    rate_bps: float | None = None
    """Uplink rate that the server assigned, bit/s."""
    upload_bytes: int = 0
    loss: float | None = None
    """Mean training loss of its last update."""
    accepted: int = 0
    """How many of its updates the server had used when it sent the last task."""


Show = Callable[[ClientStatus], None]


class ClientView(LivePanel):
    """A context manager; its `say` and `show` are for `fedpace.deploy.client.join`."""

    def __init__(
        self, console: Console, name: str, server: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._name, self._server, self._clock = name, server, clock
        self._said: tuple[str, Text] | None = None
        """When and what, since the status changed."""
        self._status, self._sent_at = ClientStatus(), 0.0
        super().__init__(console)

    def say(self, text: str) -> None:
        """Say what happened."""
        now = time.strftime("%H:%M:%S")
        self._said = (now, Text(text))
        if self._lines:
            self._console.print(Text(f"{now} {self._name}: {text}"), soft_wrap=True)

    def show(self, status: ClientStatus) -> None:
        """Show what the client is doing."""
        if status.state == "sending":
            self._sent_at = self._clock()
        self._status, self._said = status, None

    def panel(self) -> Panel:
        """Draw its part in the run."""
        now = self._status
        table = Table.grid(padding=(0, 2))
        table.add_column(style="dim", no_wrap=True)
        table.add_column(overflow="fold")
        if now.round_index is not None:
            table.add_row("round", str(now.round_index + 1))
            table.add_row(*(self._said or ("doing", self._doing())))
            table.add_row("rank", f"{now.sketch_rank} of {now.rank}")
            table.add_row("uplink", rate_text(now.rate_bps))
            table.add_row("loss", "–" if now.loss is None else f"{now.loss:.4f}")
            plural = "" if now.accepted == 1 else "s"
            table.add_row("accepted", f"{now.accepted} update{plural} so far")
        elif self._said is not None:
            table.add_row(*self._said)
        title = Text.assemble((self._name, "bold"), f" at {self._server}")
        return Panel(table, title=title, title_align="left", width=min(WIDTH, self._console.width))

    def _doing(self) -> Table | str:
        now = self._status
        if now.state == "training":
            bar = Table.grid(padding=(0, 1))
            bar.add_row(
                "training", ProgressBar(total=now.steps, completed=now.step, width=20),
                f"{now.step} of {now.steps} steps",
            )  # fmt: skip
            return bar
        # Flower's node does the sending, and does not say when it is done.
        seconds = 8 * now.upload_bytes / now.rate_bps if now.rate_bps else 0.0
        if now.state == "sending" and self._clock() < self._sent_at + seconds:
            return f"sending {bits_text(8 * now.upload_bytes)}"
        return "waiting for the server"
