"""Figures of a run and of a plan: one function each, arrays in, a matplotlib Figure out.

No pyplot, no global state: `figure.savefig(path)` writes PNG, SVG or PDF. Mappings go by method;
a method has the same colour in every figure if every figure gets the methods in the same order.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedpace.core.plan import Plan, RoundSeconds
from fedpace.core.profile import Floats
from fedpace.core.target import Target
from fedpace.reporting.metrics import TimeSplit
from fedpace.reporting.style import (
    INK,
    MUTED,
    PALETTE,
    figure,
    log_scale,
    method_styles,
    styled,
    time_unit,
)
from fedpace.reporting.units import seconds_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MANY = 400
"""More points than this are drawn as one image inside the SVG."""


@styled
def learning_curves(
    curves: Mapping[str, tuple[Floats, Floats]],
    metric: str,
    target: Target | None = None,
    reached_seconds: Mapping[str, float | None] | None = None,
) -> "Figure":
    """Held-out accuracy or loss against the clock, with the target and when it was reached.

    Args:
        curves: clock, s, and metric, each of shape (evaluations,).
        metric: "accuracy" or "loss".
        target: drawn if it is on this metric.
        reached_seconds: time to target, None where it was not reached.
    """
    made, (axes,) = figure(3.3)
    length, unit = time_unit(max((c[0][-1] for c in curves.values() if len(c[0])), default=0.0))
    shown = target is not None and target.metric == metric
    for name, style in method_styles(curves).items():
        clock, value = curves[name]
        seconds = (reached_seconds or {}).get(name)
        label = name
        if shown:
            label += ": target not reached" if seconds is None else f": {seconds_text(seconds)}"
        axes.plot(clock / length, value, label=label, **style)
        if shown and seconds is not None:
            at = float(np.interp(seconds, clock, value))
            axes.plot(seconds / length, at, "o", color=style["color"], markersize=6)
            axes.axvline(seconds / length, color=style["color"], linewidth=0.8, alpha=0.6)
    if target is not None and shown:
        axes.axhline(target.value, color=MUTED, linewidth=1)
        axes.annotate(
            f"target {target.value:g}", (0, target.value), xycoords=("axes fraction", "data"),
            xytext=(3, 2), textcoords="offset points", color=MUTED, fontsize=9,
        )  # fmt: skip
    axes.set(xlabel=f"wall-clock time, {unit}", ylabel=f"held-out {metric}")
    axes.set_xlim(left=0)
    made.legend(loc="outside upper left")
    return made


@styled
def time_splits(splits: Mapping[str, TimeSplit]) -> "Figure":
    """Where the time went, one bar a method: compute, upload, waiting, overhead.

    Args:
        splits: parts that sum to the length of the bar.
    """
    made, (axes,) = figure(1.3 + 0.42 * len(splits))
    parts = ("compute", "upload", "waiting", "overhead")
    seconds = np.array([[getattr(s, f"{part}_seconds") for part in parts] for s in splits.values()])
    seconds = np.maximum(seconds, 0.0)
    total = seconds.sum(axis=1)
    length, unit = time_unit(float(total.max()))
    left = np.zeros(len(splits))
    for part, width in zip(parts, seconds.T, strict=True):
        bars = axes.barh(range(len(splits)), width / length, 0.62, left=left / length,
                         label=part, color=PALETTE[part][0])  # fmt: skip
        wide = width > 0.1 * total.max()
        shares = [f"{w / t:.0%}" if s else "" for w, t, s in zip(width, total, wide, strict=True)]
        text = PALETTE[f"{part}-text" if f"{part}-text" in PALETTE else "ink"][0]
        axes.bar_label(bars, shares, label_type="center", fontsize=9, color=text)
        left += width
    axes.set_yticks(range(len(splits)), list(splits))
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(f"wall-clock time, {unit}")
    made.legend(loc="outside upper left", ncols=4, handlelength=0.9, columnspacing=1.2)
    return made


@styled
def participation(
    counts: Mapping[str, NDArray[np.int64]], expected: Mapping[str, Floats]
) -> "Figure":
    """Who took part how often, against what the plan asked for.

    Args:
        counts: rounds, beats or steps that a client took part in, shape (N,).
        expected: the plan's expectation of it, shape (N,).
    """
    made, panels = figure(0.9 + 1.35 * len(counts), len(counts), sharex=True)
    for axes, (name, style) in zip(panels, method_styles(counts).items(), strict=True):
        order = np.argsort(-expected[name], kind="stable")
        rank = np.arange(1, len(order) + 1)
        axes.plot(rank, counts[name][order], "o", color=style["color"], linestyle="none",
                  markersize=4 if len(order) <= _MANY else 1.5, alpha=0.75, label="took part",
                  markeredgewidth=0, rasterized=len(order) > _MANY)  # fmt: skip
        axes.plot(rank, expected[name][order], color=INK, linewidth=1.2, label="expected")
        axes.set(title=name, ylabel="times")
        axes.set_ylim(bottom=0)
        axes.margins(x=0.02)
    panels[-1].set_xlabel("client, from most to least often expected")
    handles, labels = panels[0].get_legend_handles_labels()
    made.legend(handles, labels, loc="outside upper left", ncols=2)
    return made


@styled
def plan_map(start_seconds: Floats, upload_seconds: Floats, plan: Plan) -> "Figure":
    """Sampling probability and sketch rank of each client against its device and its link.

    A quantity that is the same for every client gets no panel, unless both are.

    Args:
        start_seconds: until the client starts to send, at full rank, shape (N,).
        upload_seconds: to send the full rank alone in the whole band, shape (N,).
        plan: shows q and k.
    """
    import matplotlib
    from matplotlib.colors import ListedColormap

    columns = varying(plan) or {"sketch rank k": plan.sketch_rank.astype(np.float64)}
    made, panels = figure(0.7 + 2.5 * len(columns), len(columns), sharex=True)
    colours = matplotlib.colormaps["viridis"].resampled(256)(np.linspace(0.15, 1, 128))
    for axes, (label, value) in zip(panels, columns.items(), strict=True):
        log_scale(axes, "x", start_seconds.tolist())
        log_scale(axes, "y", upload_seconds.tolist())
        order = np.argsort(value)
        area = 14 + 70 * value[order] / value.max()
        points = axes.scatter(
            start_seconds[order], upload_seconds[order], c=value[order], 
            cmap=ListedColormap(colours), s=area if len(value) <= _MANY else area / 10,
            edgecolors=MUTED,
            linewidths=0.5 if len(value) <= _MANY else 0, rasterized=len(value) > _MANY,
        )  # fmt: skip
        axes.set_ylabel("upload alone at full rank, s")
        bar = made.colorbar(points, ax=axes, aspect=16, pad=0.02)
        bar.set_label(label)
        bar.outline.set_visible(False)
    panels[-1].set_xlabel("ready to send at full rank, s")
    return made


def varying(plan: Plan) -> dict[str, Floats]:
    """Return q and k, by label, without what is the same for every client, to a thousandth."""
    columns = {
        "sampling probability q": plan.participation_probability(),
        "sketch rank k": plan.sketch_rank.astype(np.float64),
    }
    return {label: v for label, v in columns.items() if np.ptp(v) > 1e-3 * v.max()}


@styled
def measured_against_predicted(
    measured: Mapping[str, Floats],
    predicted: Mapping[str, RoundSeconds | None],
    of: str = "round time",
    methods: Iterable[str] = (),
) -> "Figure":
    """Distribution of what was measured, with the plan's predictions on it.

    Args:
        measured: by method, of every round (or update), s.
        predicted: mean (dotted line), median and 95 % point (diamonds), s; NaN is not drawn.
        of: what is measured.
        methods: all that the run has, where only some are drawn: each keeps its colour.
    """
    made, (axes,) = figure(3.3)
    length, unit = time_unit(max(float(np.max(s)) for s in measured.values()))
    styles = method_styles(dict.fromkeys([*methods, *measured]))
    for name, seconds in measured.items():
        style, share = styles[name], np.linspace(0, 1, min(len(seconds), 400) + 1)
        seconds = np.quantile(seconds, share, method="inverted_cdf")
        axes.plot(seconds / length, share, drawstyle="steps-post", label=name, **style)
        if (guess := predicted.get(name)) is not None:
            axes.axvline(guess.mean / length, color=style["color"], linewidth=1, linestyle=":")
            axes.plot([guess.p50 / length, guess.p95 / length], [0.5, 0.95], "D",
                      color=style["color"], markersize=5.5, markeredgecolor=INK,
                      markeredgewidth=0.7)  # fmt: skip
    axes.plot([], [], color=MUTED, linestyle=":", linewidth=1, label="predicted mean")
    axes.plot([], [], "D", color=MUTED, markersize=5.5, label="predicted median and 95 %")
    axes.set(xlabel=f"{of}, {unit}", ylabel="share that took no longer", ylim=(0, 1.02))
    axes.set_xlim(left=0)
    made.legend(loc="outside upper left", ncols=2)
    return made


@styled
def round_time_distribution(
    seconds: Floats, probability: Floats, simulated_seconds: Floats | None = None
) -> "Figure":
    """Predicted distribution of a plan's round time, and simulated rounds beside it.

    Args:
        seconds: s, shape (M,), ascending.
        probability: P(T <= s), shape (M,).
        simulated_seconds: round times of simulated rounds, s.
    """
    made, (axes,) = figure(3.0)
    length, unit = time_unit(float(seconds[-1]))
    styles = list(method_styles(("predicted", "simulated")).values())
    axes.plot(seconds / length, probability, label="predicted", **styles[0])
    if simulated_seconds is not None:
        share = np.linspace(0, 1, min(len(simulated_seconds), 400) + 1)
        there = np.quantile(simulated_seconds, share, method="inverted_cdf")
        label = f"simulated, {len(simulated_seconds):,} rounds"
        axes.plot(there / length, share, drawstyle="steps-post", label=label, **styles[1])
    axes.set(xlabel=f"round time T, {unit}", ylabel="P(round time ≤ T)", ylim=(0, 1.02))
    made.legend(loc="outside upper left", ncols=2)
    return made


@styled
def predicted_times(
    sweeps: Mapping[str, tuple[Sequence[float], Mapping[str, Sequence[float]]]],
    ylabel: str = "predicted time to target, s",
) -> "Figure":
    """Predicted time to target against one quantity a panel: bandwidth, clients, rank.

    Args:
        sweeps: by axis label, such as "bandwidth, MHz": the values, and by planner the times, s.
        ylabel: what the times are.
    """
    from matplotlib.lines import Line2D

    made, panels = figure(0.8 + 2.2 * len(sweeps), len(sweeps))
    styles = method_styles(dict.fromkeys(name for _, lines in sweeps.values() for name in lines))
    for axes, (label, (values, lines)) in zip(panels, sweeps.items(), strict=True):
        for name, seconds in lines.items():
            axes.plot(values, seconds, marker="o", markersize=4, **styles[name])
        axes.set(xlabel=label)
        axes.set_ylim(bottom=0)
        log_scale(axes, "x", list(values))
        log_scale(axes, "y", [s for line in lines.values() for s in line])
    made.supylabel(ylabel, fontsize=9.5)
    keys = [Line2D([], [], marker="o", markersize=4, label=n, **s) for n, s in styles.items()]
    made.legend(handles=keys, loc="outside upper left", ncols=3)
    return made
