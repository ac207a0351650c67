"""The page of a suite whose methods share one band and one rule: geometric means over paired seeds.

Nothing in it is written by hand.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fedpace.bench.comparison import Setting, our_method, rivals, settings_of, time_of
from fedpace.bench.figures import draw_curves
from fedpace.bench.page import in_order, markdown, missing, predictions, seconds_cell
from fedpace.bench.paired import (
    Pairs,
    Quantity,
    Ratio,
    best_of,
    chosen_by_plan,
    geometric_mean,
    pairs,
    runs_of,
)
from fedpace.bench.paired_figure import draw_ratios
from fedpace.bench.results import Line
from fedpace.bench.suite import Suite

_MEAN, _BEST, _NEVER = 1.5, 2.5, 0.95
"""What was set out to reach over the best of all others: in the geometric mean, in the best
setting, in every setting."""
_WAITING = "synchronous"
"""The name, among the gains of a plan and among the methods, of rounds that wait for all."""

Runs = dict[Setting, dict[str, dict[int, Line]]]
"""Setting -> method -> seed -> line."""


def write_page(
    lines: Sequence[Line], out: Path, *, command: str, suite: Suite | None = None
) -> list[Path]:
    """Write the page and its figures.

    Args:
        lines: of a results file, of one suite, all under one rule for the band.
        out: the Markdown file; figures go into the folder "img" beside it.
        command: how to make the page again.
        suite: for what it is for, what it compares, and what of it has not been run.

    Returns:
        The files written.
    """
    lines = in_order(lines, suite)
    mine, others = our_method(lines), rivals(lines, ["published", "sampler", "ablation"])
    name, rule = lines[0]["suite"], lines[0]["rule"]
    quantity: Quantity = "seconds" if suite is None else suite.quantity
    runs: Runs = {
        setting: {method: runs_of(lines, setting, method) for method in [mine, *others]}
        for setting in settings_of(lines)
    }
    runs = {setting: found for setting, found in runs.items() if found[mine]}
    seeds = sorted({line["seed"] for line in lines})
    images = out.parent / "img"
    images.mkdir(parents=True, exist_ok=True)
    figures = [images / f"results-{name}-{what}.png" for what in ("ratios", "curves")]
    draw_ratios(_figure_rows(runs, mine, quantity), quantity).savefig(figures[0], dpi=120)
    draw_curves(lines, mine, others, rule).savefig(figures[1], dpi=120)
    parts = [
        f"# Results: {name}",
        f"{'' if suite is None else suite.about + ' '}Made by `{command}` from "
        f"`benchmarks/results/{name}.jsonl`, which holds a line for each run with its command, "
        f"commit and machine. Every method has the band divided by the rule `{rule}`. Ratios are "
        f"the other's {quantity} to the target over ours, paired by seed ({len(seeds)} seeds at "
        "most): geometric mean, in brackets the 90 % interval of 4,000 bootstrap samples over the "
        "seeds; with so few seeds it is too narrow rather than too wide. Above 1 ours is faster. "
        "\u201c>\u201d: the other missed the target in some runs, and counts with the end of its "
        "budget; \u201c<\u201d: ours missed it in some; \u201c~\u201d: both. A pair in which both "
        "missed is left out.",
        *missing(lines, suite),
    ]
    if quantity == "seconds":
        parts += ["## What was to be shown", _claims(runs, mine, others)]
    parts += [
        f"## {quantity.capitalize()} to the target",
        _amounts(lines, runs, [mine, *others], rule, quantity),
        "## Ratios by setting",
        _ratios(runs, mine, others, quantity),
        f"![Ratios with intervals, measured and predicted](img/{figures[0].name})",
        f"![Held-out metric against the clock](img/{figures[1].name})",
    ]
    if quantity == "seconds":
        parts += [
            "## Predicted and measured gain, and the distance to the limit",
            "Predicted: the plan's own promise over rounds that wait, at the noise ratio that "
            "tuning chose. Distance: planned time over the least that any scheme could need on "
            "this band; for ours as measured, that of rounds that wait over the measured ratio.",
            _planned(runs, mine),
            "## Predicted against measured time",
            predictions(lines),
        ]
    parts += ["## What tuning chose", _choices(runs, [mine, *others])]
    out.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return [out, *figures]


def _over_best(runs: Runs, ours: str, quantity: Quantity) -> dict[Setting, tuple[str, Pairs]]:
    """The best other method of each setting and the ratios to it."""
    found = {}
    for setting, here in runs.items():
        others = {name: each for name, each in here.items() if name != ours}
        best = best_of(here[ours], others, quantity)
        ratio = None if best is None else pairs(here[ours], others[best], quantity)
        if best is not None and ratio is not None:
            found[setting] = (best, ratio)
    return found


def _by_plan(runs: Runs, ours: str) -> Runs:
    """The runs with ours replaced by what its planner would have taken of both schedules."""
    return {
        setting: {**here, ours: chosen_by_plan(here[ours], here[_WAITING], _WAITING)}
        for setting, here in runs.items()
        if here.get(_WAITING)
    }


def _claims(runs: Runs, ours: str, others: Sequence[str]) -> str:
    rows = []
    cases = {f"{ours} over the best of all others": _over_best(runs, ours, "seconds")}
    if any(here.get(_WAITING) for here in runs.values()):
        chosen = {
            setting: {name: each for name, each in here.items() if name != _WAITING}
            for setting, here in _by_plan(runs, ours).items()
        }
        cases["what the planner predicts to be faster, over the best rival"] = _over_best(
            chosen, ours, "seconds"
        )
    for name in others:
        found = {s: pairs(here[ours], here[name]) for s, here in runs.items()}
        cases[f"{ours} over {name}"] = {s: (name, p) for s, p in found.items() if p is not None}
    for what, found in cases.items():
        if found:
            each = {", ".join(s): geometric_mean([p]) for s, (_, p) in found.items()}
            worst, best = (f(each, key=lambda s: each[s].mean) for f in (min, max))
            rows.append([
                what, str(len(each)), str(geometric_mean([p for _, p in found.values()])),
                f"{each[best]}, {best}", f"{each[worst]}, {worst}",
            ])  # fmt: skip
    text = (
        f"Set out to reach over the best of all others: {_MEAN:g}x in the geometric mean, "
        f"{_BEST:g}x in the best setting, nowhere below {_NEVER:g}x. The best other of a setting "
        "is picked on the compared runs, which favours it."
    )
    header = ["", "settings", "geometric mean", "best setting", "worst setting"]
    return f"{text}\n\n{markdown(header, rows)}"


def _amounts(
    lines: Sequence[Line], runs: Runs, methods: Sequence[str], rule: str, quantity: Quantity
) -> str:
    rows = []
    for setting, here in runs.items():
        cells = []
        for method in methods:
            if quantity == "seconds":
                cells.append(seconds_cell(time_of(lines, setting, method, rule)) or "–")
            else:
                counts = [str(line[quantity]) for line in here[method].values()]
                cells.append(", ".join(counts) or "–")
        rows.append([", ".join(setting), *cells])
    text = (
        "Median over the seeds (fastest to slowest; how many reached it, where not all did)."
        if quantity == "seconds"
        else "Of each seed."
    )
    return f"{text}\n\n{markdown(['setting', *methods], rows)}"


def _ratios(runs: Runs, ours: str, others: Sequence[str], quantity: Quantity) -> str:
    best = _over_best(runs, ours, quantity)
    table = {s: {m: pairs(here[ours], here[m], quantity) for m in others}
             for s, here in runs.items()}  # fmt: skip
    rows = [
        [
            ", ".join(setting),
            *(str(geometric_mean([each])) if each else "–" for each in row.values()),
            f"{geometric_mean([best[setting][1]])}, {best[setting][0]}" if setting in best else "–",
        ]
        for setting, row in table.items()
    ]
    means = []
    for found in ([row[m] for row in table.values()] for m in others):
        known = [each for each in found if each is not None]
        means.append(f"**{geometric_mean(known)}**" if known else "–")
    every = [p for _, p in best.values()]
    means.append(f"**{geometric_mean(every)}**" if every else "–")
    rows.append(["**geometric mean**", *means])
    return markdown(["setting", *others, "the best of all"], rows)


def _planned(runs: Runs, ours: str) -> str:
    rows = []
    for setting, here in runs.items():
        waiting = here.get(_WAITING) or {}
        promised = _median([ln["predicted_gain"].get(_WAITING) for ln in here[ours].values()])
        measured = pairs(here[ours], waiting)
        far, near = (
            _median([line.get("over_limit") for line in each.values()])
            for each in (waiting, here[ours])
        )
        ratio = None if measured is None else geometric_mean([measured])
        rows.append([
            ", ".join(setting), _number(promised), "–" if ratio is None else str(ratio),
            _number(far), _number(near), _number(np.nan if ratio is None else far / ratio.mean),
        ])  # fmt: skip
    return markdown(
        ["setting", "gain over rounds that wait, predicted", "measured",
         "distance to the limit: rounds that wait", "ours, planned", "ours, as measured"],
        rows,
    )  # fmt: skip


def _choices(runs: Runs, methods: Sequence[str]) -> str:
    """The last key of a rate and of a size: what differs."""
    rows = []
    for setting, here in runs.items():
        cells = []
        for method in methods:
            line = next(iter(here[method].values()), None)
            if line is None:
                cells.append("–")
                continue
            rate = line["rate"].get("server_learning_rate")
            size = ", ".join(f"{value:g}" for value in line["size"].values())
            cells.append(f"{rate:g}" + (f"; {size}" if size else ""))
        rows.append([", ".join(setting), *cells])
    text = "Server rate; cohort or noise ratio, if it has one."
    return f"{text}\n\n{markdown(['setting', *methods], rows)}"


def _figure_rows(
    runs: Runs, ours: str, quantity: Quantity
) -> Mapping[str, tuple[str, Ratio, Ratio | None, float]]:
    """Setting -> the best other, the ratios to it and to rounds that wait, the one promised."""
    rows = {}
    for setting, (best, ratio) in _over_best(runs, ours, quantity).items():
        here = runs[setting]
        waiting = pairs(here[ours], here.get(_WAITING) or {}, quantity)
        promised = _median([ln["predicted_gain"].get(_WAITING) for ln in here[ours].values()])
        rows[", ".join(setting)] = (
            best, geometric_mean([ratio]),
            None if waiting is None else geometric_mean([waiting]), promised,
        )  # fmt: skip
    return rows


def _median(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else np.nan


def _number(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.2f}"
