"""Figures of paired results: ratios with intervals, curves with bands, promises."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from fedpace.bench.crossing import best_so_far
from fedpace.bench.honesty import Promise
from fedpace.bench.paired import Ratio
from fedpace.bench.paired_tables import Results
from fedpace.bench.results import Line
from fedpace.core.profile import Floats
from fedpace.reporting.style import MUTED, log_scale, method_styles, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = 2
_TIMES = 200
"""Moments at which a band is drawn."""
_BAND = (0.25, 0.75)
"""Quantiles over the seeds."""


@styled
def draw_ratios(rows: Mapping[str, Mapping[str, Ratio]], label: str) -> "Figure":
    """Ratios with their intervals, a row for each thing compared with.

    Args:
        rows: name of the row -> name of what is drawn in it -> ratio; in order, from above.
        label: of the axis.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    kinds = list(dict.fromkeys(kind for row in rows.values() for kind in row))
    made = Figure(figsize=(6.4, 0.3 * len(rows) + 1.1), layout="constrained")
    axes = made.subplots()
    styles = method_styles(kinds)
    shift = dict(zip(kinds, np.linspace(0.14, -0.14, len(kinds)) if len(kinds) > 1 else [0.0],
                     strict=True))  # fmt: skip
    at = dict(zip(rows, range(len(rows) - 1, -1, -1), strict=True))
    for name, row in rows.items():
        for kind, ratio in row.items():
            colour, y = styles[kind]["color"], at[name] + shift[kind]
            axes.plot([ratio.low, ratio.high], [y, y], "-", color=colour, linewidth=1.4)
            # An arrow where the ratio is at least this; hollow where no lead or loss is called.
            called = ratio.leads or ratio.trails
            axes.plot([ratio.mean], [y], ">" if ratio.at_least else "o", color=colour,
                      markersize=5, markerfacecolor=colour if called else "white")  # fmt: skip
    axes.axvline(1, color=MUTED, linewidth=0.9)
    axes.set_xscale("log")
    _plain(axes, "x")
    axes.set_xlabel(label)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_yticks(list(at.values()), list(at))
    if len(kinds) > 1:
        handles = [Line2D([], [], color=styles[kind]["color"], marker="o") for kind in kinds]
        made.legend(handles, kinds, loc="outside upper center", ncols=len(kinds))
    return made


@styled
def draw_bands(results: Results, methods: Sequence[str]) -> "Figure":
    """The best so far against the clock, a panel for each setting, with bands over the seeds.

    Args:
        results: of one suite.
        methods: which are drawn.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    columns = min(_COLUMNS, len(results.runs))
    rows = -(-len(results.runs) // columns)
    made = Figure(figsize=(3.6 * columns, 2.4 * rows + 0.6), layout="constrained")
    grid = made.subplots(rows, columns, squeeze=False).ravel()
    styles = method_styles(methods)
    for axes, setting in zip(grid, results.runs, strict=False):
        for name in methods:
            lines = list(results.of(name, setting).values())
            if lines:
                _draw_band(axes, lines, name, styles[name]["color"])
        line = next(iter(results.of(results.ours, setting).values()))
        for target in line.get("targets", [line["target"]]):
            axes.axhline(float(target.split("=")[1]), color=MUTED, linewidth=0.7)
        axes.set_title(", ".join(setting))
        seen = [x for c in axes.lines if c.get_label() in styles for x in c.get_xdata()]
        log_scale(axes, "x", [float(x) for x in seen])
        axes.set_xlabel("clock, s")
        axes.set_ylabel(_metric(line))
    for axes in grid[len(results.runs) :]:
        axes.set_visible(False)
    handles = [Line2D([], [], color=styles[name]["color"]) for name in methods]
    made.legend(handles, methods, loc="outside upper center", ncols=3)
    return made


def _draw_band(axes: "Axes", lines: Sequence[Line], name: str, colour: str) -> None:
    times, values = band_of(lines)
    low, middle, high = np.quantile(values, [_BAND[0], 0.5, _BAND[1]], axis=0)
    axes.fill_between(times, low, high, color=colour, alpha=0.18, linewidth=0)
    axes.plot(times, middle, color=colour, label=name, linewidth=1.6)


def band_of(lines: Sequence[Line]) -> tuple[Floats, Floats]:
    """Return common moments, s, and every seed's best so far at them, shape (seeds, moments).

    A run that has ended keeps its last value, the target where it reached that; the moments begin
    where every run has a value.

    Args:
        lines: of one method in one setting.
    """
    metric = _metric(lines[0])
    curves = [np.array(best_so_far(line["curve"], metric)) for line in lines]
    curves = [curve for curve in curves if len(curve)] or [np.array([[1.0, np.nan]])]
    first = max(curve[0, 0] for curve in curves)
    last = max(curve[-1, 0] for curve in curves)
    times = np.geomspace(max(first, 1e-9), max(last, first * 1.001), _TIMES)
    return times, np.array([np.interp(times, *curve.T) for curve in curves])


def _metric(line: Line) -> str:
    return "accuracy" if line["target"].startswith("accuracy") else "loss"


@styled
def draw_promises(found: Sequence[Promise]) -> "Figure":
    """Measured gain with its interval against promised gain, a point for each promise."""
    from matplotlib.figure import Figure

    made = Figure(figsize=(5.4, 5.4), layout="constrained")
    axes = made.subplots()
    cases = list(dict.fromkeys((each.method, each.rival) for each in found))
    styles = method_styles([f"{method} over {rival}" for method, rival in cases])
    for (method, rival), (label, style) in zip(cases, styles.items(), strict=True):
        own = [each for each in found if (each.method, each.rival) == (method, rival)]
        x = [each.predicted for each in own]
        for each in own:
            axes.plot([each.predicted] * 2, [each.measured.low, each.measured.high], "-",
                      color=style["color"], linewidth=0.8)  # fmt: skip
        axes.plot(x, [each.measured.mean for each in own], "o", color=style["color"], label=label,
                  markersize=4)  # fmt: skip
    every = [v for each in found for v in (each.predicted, each.measured.low, each.measured.high)]
    ends = [min(*every, 1.0) / 1.1, max(*every, 1.0) * 1.1]
    axes.plot(ends, ends, color=MUTED, linewidth=0.8)
    for line in (axes.axhline, axes.axvline):
        line(1, color=MUTED, linewidth=0.5, linestyle=":")
    axes.set(xscale="log", yscale="log", xlim=ends, ylim=ends)
    for which in ("x", "y"):
        _plain(axes, which)
    axes.set_xlabel("gain that the plan promised")
    axes.set_ylabel("gain measured")
    handles, labels = axes.get_legend_handles_labels()
    made.legend(handles, labels, loc="outside upper center", ncols=2, fontsize=8.5)
    return made


def _plain(axes: "Axes", which: str) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
