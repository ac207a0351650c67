"""Predicted against measured seconds, as a figure."""

from collections.abc import Sequence
from pathlib import Path

from fedpace.reporting.style import MUTED, figure, method_styles, styled
from fedpace.testbed.prediction import RoundTimes

FILE = "testbed.svg"


@styled
def draw_times(rounds: Sequence[RoundTimes], path: Path) -> None:
    """Draw each round, and each client's end in it, measured over predicted.

    Args:
        rounds: of a run on a testbed.
        path: of the figure; its ending says the format.
    """
    made, axes = figure(3.3, 2)
    by_method: dict[str, list[RoundTimes]] = {each.method: [] for each in rounds}
    for each in rounds:
        by_method[each.method].append(each)
    for method, style in method_styles(by_method).items():
        mine = by_method[method]
        pairs = [
            [(each.predicted_seconds, each.measured_seconds) for each in mine],
            [(c.predicted_finish, c.finish) for each in mine for c in each.clients if c.finish],
        ]
        for ax, points in zip(axes, pairs, strict=True):
            ax.plot(*zip(*points, strict=True), ".", color=style["color"], label=method)
    for ax, what in zip(axes, ("a round", "a client's part in it"), strict=True):
        end = max(ax.get_xlim()[1], ax.get_ylim()[1])
        ax.plot([0, end], [0, end], color=MUTED, linewidth=0.8)
        ax.set(xlim=(0, end), ylim=(0, end), xlabel="predicted, s", ylabel="measured, s")
        ax.set_title(f"Seconds of {what}")
    axes[0].legend()
    made.savefig(path)
