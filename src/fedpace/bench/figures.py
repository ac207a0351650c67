"""Figures of a benchmark: one function each, lines in, a matplotlib Figure out."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fedpace.bench.comparison import Setting, settings_of, speedup, time_of
from fedpace.bench.results import Line
from fedpace.reporting.style import MUTED, log_scale, method_styles, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLUMNS = 3
_RIVALS = ("uniform", "weighted")
"""Over which a plan says what it gains."""


@styled
def draw_curves(
    lines: Sequence[Line], ours: str, others: Sequence[str], rule: str = "equal-finish"
) -> "Figure":
    """The metric against the clock, a panel for each setting, the first seed.

    Args:
        lines: of one suite.
        ours: our method.
        others: those that ran in every setting are drawn, if there are such.
        rule: how the band was divided.
    """
    from matplotlib.figure import Figure

    settings = settings_of(lines)
    columns = min(_COLUMNS, len(settings))
    rows = -(-len(settings) // columns)
    made = Figure(figsize=(3.3 * columns, 2.6 * rows + 0.6), layout="constrained")
    grid = made.subplots(rows, columns, squeeze=False).ravel()
    everywhere = [m for m in others if all(_curve(lines, s, m, rule) is not None for s in settings)]
    styles = method_styles([ours, *(everywhere or others)])
    for axes, setting in zip(grid, settings, strict=False):
        for name, style in styles.items():
            curve = _curve(lines, setting, name, rule)
            if curve is not None:
                wide = 2.6 if name == ours else 1.2
                axes.plot(*curve.T, label=name, **style, linewidth=wide)
        own = next(ln for ln in lines if (ln["task"], ln["network"]) == setting)
        target = float(own["target"].split("=")[1])
        axes.axhline(target, color=MUTED, linewidth=0.8)
        axes.set_title(", ".join(setting))
        log_scale(axes, "x", [float(x) for line in axes.lines[:-1] for x in line.get_xdata()])
        axes.set_xlabel("clock, s")
        axes.set_ylabel("accuracy" if own["target"].startswith("acc") else "loss")
    for axes in grid[len(settings) :]:
        axes.set_visible(False)
    made.legend(*grid[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return made


def _curve(lines: Sequence[Line], setting: Setting, method: str, rule: str) -> "np.ndarray | None":
    for line in lines:
        here = (line["task"], line["network"]) == setting
        if here and line["method"] == method and line["rule"] == rule:
            return np.array(line["curve"], dtype=float)
    return None


@styled
def draw_gains(lines: Sequence[Line], ours: str) -> "Figure":
    """Measured speed-up over uniform and weighted sampling beside what the plan promised."""
    from matplotlib.figure import Figure

    settings = settings_of(lines)
    made = Figure(figsize=(7.2, 0.34 * len(settings) + 1.3), layout="constrained")
    panels = made.subplots(1, 2, sharey=True)
    at = np.arange(len(settings))[::-1]
    for axes, rival in zip(panels, _RIVALS, strict=True):
        measured, predicted = [], []
        for setting in settings:
            measured.append(measured_gain(lines, setting, ours, rival))
            predicted.append(predicted_gain(lines, setting, ours, rival))
        style = method_styles(["measured", "predicted"])
        axes.plot(measured, at, "o", color=style["measured"]["color"], label="measured")
        axes.plot(predicted, at, "|", color=style["predicted"]["color"], markersize=14,
                  markeredgewidth=2, label="predicted")  # fmt: skip
        axes.axvline(1, color=MUTED, linewidth=0.8)
        axes.set_title(f"over {rival} sampling, equal finish")
        axes.set_xlabel("speed-up")
        axes.set(xlim=(0, None), ylim=(-0.6, len(settings) - 0.4))
    panels[0].set_yticks(at, [", ".join(setting) for setting in settings])
    made.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return made


def measured_gain(lines: Sequence[Line], setting: Setting, ours: str, rival: str) -> float:
    """Return a rival's time over ours, equal finish for both; nan where one is not known."""
    found = speedup(
        time_of(lines, setting, ours, "equal-finish"),
        time_of(lines, setting, rival, "equal-finish"),
    )
    return np.nan if found is None else found.ratio


def predicted_gain(lines: Sequence[Line], setting: Setting, ours: str, rival: str) -> float:
    """Return what our first plan promised over the rival's best, median over the seeds."""
    promised = [
        line["predicted_gain"].get(rival, np.nan)
        for line in lines
        if (line["task"], line["network"], line["method"]) == (*setting, ours)
    ]
    return float(np.median(promised)) if promised else np.nan
