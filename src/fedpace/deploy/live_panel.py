"""A panel that stays on a terminal while something goes on; a file gets lines in its place."""

from typing import Self

from rich.console import Console, RenderableType
from rich.live import Live


class LivePanel:
    """A context manager; `panel` is drawn at once, and four times a second while it is open.

    So whoever extends it sets what `panel` needs before this is made.
    """

    def __init__(self, console: Console) -> None:
        self._console, self._lines = console, not console.is_terminal
        self._live = Live(get_renderable=self.panel, console=console, refresh_per_second=4)

    def __enter__(self) -> Self:
        if not self._lines:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if not self._lines:
            self._live.stop()

    def panel(self) -> RenderableType:
        """Draw what is known by now."""
        raise NotImplementedError
