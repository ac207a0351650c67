"""Predicted against measured seconds of a run on a testbed: how far off, and a figure."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fedpace.core.times import RoundTimes
from fedpace.reporting.style import MUTED, figure, method_styles, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def errors(rounds: Sequence[RoundTimes]) -> dict[str, float]:
    """Return how far predictions were off: means and 95 % quantiles, s; errors and spread, shares.

    "learned" takes the median of what the rounds before took beyond T, in the first round nothing.
    """
    measured = np.array([each.measured_seconds for each in rounds])
    clock = np.array([each.predicted_seconds for each in rounds])
    beyond = measured - np.array([each.transfer_seconds for each in rounds])
    learned = np.array([np.median(beyond[:i]) if i else 0.0 for i in range(len(beyond))])
    late = [c.overrun_seconds > 0 for each in rounds for c in each.clients]
    spread = [s for each in rounds if (s := each.finish_spread) is not None]
    return {
        "rounds": float(len(rounds)),
        "measured_mean": float(measured.mean()),
        "predicted_mean": float(clock.mean()),
        "measured_p95": float(np.quantile(measured, 0.95)),
        "predicted_p95": float(np.quantile(clock, 0.95)),
        "median_error": float(np.median(np.abs(clock - measured) / measured)),
        "median_error_learned": float(np.median(np.abs(learned - beyond) / measured)),
        "median_spread": float(np.median(spread)) if spread else float("nan"),
        "late": float(np.mean(late)),
    }


@styled
def measured_times(rounds: Sequence[RoundTimes]) -> "Figure":
    """Each round, and each client's end in it, measured over predicted.

    Args:
        rounds: of a run on a testbed, one at least.
    """
    made, axes = figure(6.2, 2)
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
            ax.plot(*np.transpose(points), ".", color=style["color"], label=method)
    for ax, what in zip(axes, ("a round", "a client's part in it"), strict=True):
        end = max(ax.get_xlim()[1], ax.get_ylim()[1])
        ax.plot([0, end], [0, end], color=MUTED, linewidth=0.8)
        ax.set(xlim=(0, end), ylim=(0, end), xlabel="predicted, s", ylabel="measured, s")
        ax.set_title(f"Seconds of {what}")
    axes[0].legend()
    return made
