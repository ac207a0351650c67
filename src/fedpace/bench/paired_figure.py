"""A figure of paired ratios: a row for each setting, with intervals, measured and predicted."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from fedpace.bench.paired import Quantity, Ratio
from fedpace.reporting.style import MUTED, log_scale, method_styles, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@styled
def draw_ratios(
    rows: Mapping[str, tuple[str, Ratio, Ratio | None, float]], quantity: Quantity
) -> "Figure":
    """Ratios to the best other method and, where they are known, to rounds that wait.

    Args:
        rows: setting -> (best other, ratio to it, ratio to rounds that wait, the one promised).
        quantity: what the ratios are of.
    """
    from matplotlib.figure import Figure

    both = any(waiting is not None for _, _, waiting, _ in rows.values())
    made = Figure(figsize=(7.2 if both else 5.0, 0.36 * len(rows) + 1.4), layout="constrained")
    panels = np.atleast_1d(made.subplots(1, 1 + both, sharey=True))
    at = dict(zip(rows, range(len(rows) - 1, -1, -1), strict=True))
    style = method_styles(["measured", "predicted"])
    for name, (best, ratio, waiting, promised) in rows.items():
        _mark(panels[0], ratio, at[name], style["measured"]["color"])
        panels[0].annotate(best, (ratio.high, at[name]), (4, 0), textcoords="offset points",
                           va="center", color=MUTED, fontsize=8)  # fmt: skip
        if both and waiting is not None:
            _mark(panels[1], waiting, at[name], style["measured"]["color"])
        if both and np.isfinite(promised):
            panels[1].plot([promised], [at[name]], "|", color=style["predicted"]["color"],
                           markersize=14, markeredgewidth=2, label="predicted")  # fmt: skip
    panels[0].set_title("over the best other (named)")
    if both:
        panels[1].set_title("over rounds that wait")
    for axes in panels:
        axes.axvline(1, color=MUTED, linewidth=0.8)
        axes.set_xlabel(f"ratio of {quantity}")
        axes.set_ylim(-0.6, len(rows) - 0.4)
        drawn = [float(x) for line in axes.lines for x in line.get_xdata()]
        log_scale(axes, "x", drawn)
    panels[0].set_yticks(list(at.values()), list(at))
    named = {label: handle for axes in panels
             for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}  # fmt: skip
    made.legend(named.values(), named.keys(), loc="outside upper center", ncols=2)
    return made


def _mark(axes: "Axes", ratio: Ratio, at: float, colour: str) -> None:
    axes.plot([ratio.low, ratio.high], [at, at], "-", color=colour, linewidth=1.4)
    axes.plot([ratio.mean], [at], "o", color=colour, label="measured")
