"""The page of a suite whose methods share one band and one rule: paired seeds, intervals, power.

Nothing in it is written by hand: every number and every sentence comes from the lines.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fedpace.bench.comparison import time_of
from fedpace.bench.honesty import promises
from fedpace.bench.page import (
    in_order,
    markdown,
    missing,
    predictions,
    seconds_cell,
    unsaved,
)
from fedpace.bench.paired import Pairs, Ratio, geometric_mean, power
from fedpace.bench.paired_costs import choices, costs
from fedpace.bench.paired_figures import draw_bands, draw_promises, draw_ratios
from fedpace.bench.paired_headline import headline, sentences
from fedpace.bench.paired_names import names
from fedpace.bench.paired_promises import REGIMES, promised, regimes
from fedpace.bench.paired_readings import readings
from fedpace.bench.paired_tables import (
    AUTO,
    BEST,
    WAITING,
    Results,
    by_setting,
    cell,
    overall,
    results_of,
    told_from_one,
)
from fedpace.bench.regimes import draw_regimes, has_regimes
from fedpace.bench.results import Line
from fedpace.bench.suite import Suite

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DRAWN = 3
"""How many rivals have a curve."""


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
    results = results_of(in_order(lines, suite), suite)
    name = lines[0]["suite"]
    images = out.parent / "img"
    images.mkdir(parents=True, exist_ok=True)
    files = []
    for what, figure in _figures(results, suite).items():
        files.append(images / f"results-{name}-{what}.png")
        figure.savefig(files[-1], dpi=120)
    out.write_text(page_text(lines, command=command, suite=suite), encoding="utf-8")
    return [out, *files]


def _figures(results: Results, suite: Suite | None) -> dict[str, "Figure"]:
    """What there is to draw: of the first lines of a suite there may be no ratio yet."""
    label = f"{results.quantity} of the others over ours (filled: told from 1)"
    made = {}
    if rows := _overview(results):
        made["overview"] = draw_ratios(rows, label)
    if results.quantity == "seconds":
        if rows := _settings(results):
            made["settings"] = draw_ratios(rows, label)
        made["curves"] = draw_bands(results, _drawn(results))
        if found := promises(results):
            made["promises"] = draw_promises(found)
        if suite is not None and has_regimes(suite):
            made["regimes"] = draw_regimes(suite, regimes(results))
    return made


def page_text(lines: Sequence[Line], *, command: str, suite: Suite | None = None) -> str:
    """Return the page; see `write_page`."""
    lines = in_order(lines, suite)
    results = results_of(lines, suite)
    name, timed = lines[0]["suite"], results.quantity == "seconds"
    parts = [f"# Results: {name}"]
    if _overview(results):
        parts += [_picture(name, "overview", _OVERVIEW)]
    if timed:
        parts += [sentences(results), *([headline(results)] if results.rivals else [])]
    parts += [
        f"{'' if suite is None else suite.about + ' '}Made by `{command}`; the file "
        "that it reads holds a line for each run with its command, "
        f"commit and machine.{unsaved(lines)}",
        *missing(lines, suite),
        *([] if suite is None else ["## What the names mean", names(results, suite)]),
        "## How to read the numbers",
        _reading(results, lines),
        *(["## Over every rival", _rivals(results)] if results.rivals else []),
        "## By setting",
    ]
    if timed and _settings(results):
        parts += [_picture(name, "settings", "Ratio to the best rival of each setting")]
    for who in results.shown:
        parts += [f"### {who}", _by_setting(results, who)]
    parts += [f"## {results.quantity.capitalize()} to the target", _amounts(lines, results)]
    if timed:
        parts += [_picture(name, "curves", "Best held-out value so far against the clock")]
        parts += [f"Median and middle half of the seeds; {', '.join(_drawn(results))}."]
    parts += ["## Which ratios the seeds can tell from 1", _power(results)]
    if any("targets" in line for line in lines):
        parts += ["## At each target", _at_each_target(results, lines)]
        parts += ["## Does it hang on how a curve is read?", readings(results)]
    if results.changed:
        parts += ["## Ours with something changed", _changed(results)]
    parts += ["## Where it does not help", _losses(results)]
    if timed and suite is not None and has_regimes(suite):
        parts += ["## Regime map", REGIMES, _picture(name, "regimes", "Gain over both")]
    if timed:
        kept = _picture(name, "promises", "Gain measured against gain promised")
        parts += ["## Promised and measured gain", *promised(results, kept)]
        parts += ["## Predicted against measured time", predictions(lines)]
    parts += ["## What tuning cost and chose", costs(results), choices(results, suite)]
    return "\n\n".join(parts) + "\n"


_OVERVIEW = "How many times as long the others take, with 90 % intervals"


def _picture(name: str, what: str, text: str) -> str:
    return f"![{text}](img/results-{name}-{what}.png)"


def _reading(results: Results, lines: Sequence[Line]) -> str:
    of_targets = any("targets" in line for line in lines)
    what = (
        "A task has several targets; when a run reaches one is read off its curve of evaluations, "
        "averaged over two neighbours, at its best so far, between two evaluations linearly. A "
        "seed's ratio is the geometric mean over the targets. "
        if of_targets
        else ""
    )
    auto = (
        f" `{AUTO}` is no run of its own: of each seed it takes {results.ours} rounds where the "
        f"plan, made before the run, promises {results.enough_gain:g} times the speed of {WAITING} "
        "ones, and those otherwise."
        if results.has_auto
        else ""
    )
    return (
        f"A ratio is the other's {results.quantity} over ours, above 1 where ours is faster. {what}"
        f"All methods have the band divided by the rule `{lines[0]['rule']}`. A seed fixes initial "
        "adapter, partition, devices and links, so ratios are taken seed by seed; the number is "
        "the geometric mean over seeds (and over settings, each weighed alike), in brackets its "
        "90 % interval: 4,000 bootstrap samples of the seeds, drawn together in all settings that "
        "have them, with percentiles as so few seeds ask for. **Bold**: the interval leaves out 1 "
        "and there are five seeds or more, a lead; bold with \u2193, a loss. \u201c>\u201d: the "
        "other missed a target in some runs, and counts with the time at which its budget ended: a "
        "loss then asks for an interval below 1 without such targets, too; \u201c<\u201d: ours "
        "missed one in some, and no lead is called; \u201c~\u201d: both. What both missed is left "
        "out. The best rival of a setting is picked on the compared runs, which favours it; the "
        f"rivals are all methods but ours and ours with something changed.{auto}"
    )


def _rivals(results: Results) -> str:
    rows = []
    for other in [BEST, *results.rivals]:
        found = results.over(results.ours, other)
        each = by_setting(found)
        if not each:
            continue
        worst, best = (pick(each, key=lambda s: each[s].mean) for pick in (min, max))
        told = told_from_one(found)
        beside = [cell(overall(results.over(who, other))) for who in results.shown[1:]]
        rows.append([
            other, str(len(each)), cell(overall(found)), *beside,
            f"{each[worst].mean:.2f}, {', '.join(worst)}",
            f"{each[best].mean:.2f}, {', '.join(best)}",
            "–" if told is None else f"{told:.2f}",
        ])  # fmt: skip
    header = ["over", "settings", *results.shown, "least, where", "most, where",
              "could tell from 1"]  # fmt: skip
    return markdown(header, rows)


def _by_setting(results: Results, who: str) -> str:
    parts = []
    best = results.over(who, BEST)
    changed = [WAITING] if who == AUTO else [results.ours, *results.changed]
    others = [*results.rivals, *(name for name in changed if name != who)]
    table = {other: by_setting(results.over(who, other)) for other in others}
    for task, settings in results.tasks.items():
        rows, named = [], []
        for setting in settings:
            ratio = geometric_mean([best[setting]]) if setting in best else None
            name = f", {results.best_rival(who, setting)}" if ratio else ""
            named.append(cell(ratio) + name)
        rows.append([BEST, *named])
        for other, each in table.items():
            if any(setting in each for setting in settings):
                rows.append([other, *(cell(each.get(setting)) for setting in settings)])
        if who == AUTO:
            rows.append(["takes ours in", *(f"{results.overlaps(s):.0%}" for s in settings)])
        parts.append(markdown([task, *(network for _, network in settings)], rows))
    return "\n\n".join(parts)


def _amounts(lines: Sequence[Line], results: Results) -> str:
    timed = results.quantity == "seconds"
    rule = lines[0]["rule"]
    text = (
        "To the hardest target: median over the seeds (fastest to slowest; how many reached it, "
        "where not all did)."
        if timed
        else "Of each seed."
    )
    parts = [text]
    for task, settings in results.tasks.items():
        rows = []
        for method in results.methods:
            cells = []
            for setting in settings:
                if timed:
                    cells.append(seconds_cell(time_of(lines, setting, method, rule)) or "–")
                else:
                    runs = results.of(method, setting).values()
                    cells.append(", ".join(str(line["rounds"]) for line in runs) or "–")
            if set(cells) != {"–"}:
                rows.append([method, *cells])
        parts.append(markdown([task, *(network for _, network in settings)], rows))
    return "\n\n".join(parts)


def _power(results: Results) -> str:
    found = {name: results.over(results.ours, name) for name in (BEST, WAITING)}
    columns = {name: each for name, each in found.items() if each}
    rows = [
        [", ".join(setting), *(_told([each[setting]]) if setting in each else "–"
                               for each in columns.values())]
        for setting in results.runs
    ]  # fmt: skip
    rows.append(["**all together**", *(_told(list(each.values())) for each in columns.values())])
    text = (
        "The least ratio at which four of five repetitions of the measurement would have an "
        "interval without 1: exp((t_0.95 + t_0.8) s / sqrt(n)), with s the standard deviation of "
        "the logarithms of the n paired ratios and Student's t for n - 1. Its inverse is the least "
        "loss that would be seen. A ratio nearer to 1 than this, without a lead, says little."
    )
    return f"{text}\n\n{markdown(['setting', *(f'over {name}' for name in columns)], rows)}"


def _told(settings: Sequence[Pairs]) -> str:
    told = power(settings)
    return "–" if told is None else f"{told:.2f}"


def _changed(results: Results) -> str:
    rows = []
    found = {name: results.over(results.ours, name) for name in results.changed}
    for setting in results.runs:
        cells = [
            cell(geometric_mean([each[setting]]) if setting in each else None)
            for each in found.values()
        ]
        rows.append([", ".join(setting), *cells])
    rows.append(["all together", *(cell(overall(each)) for each in found.values())])
    text = "Time of the changed method over ours: above 1, the change costs time."
    return f"{text}\n\n{markdown(['setting', *found], rows)}"


def _at_each_target(results: Results, lines: Sequence[Line]) -> str:
    """A lead may lie in the first part of a training alone."""
    count = max(len(line.get("targets", ())) for line in lines)
    rows = []
    for other in [*results.rivals, *results.changed]:
        cells = [
            cell(overall(replace(results, target=place).over(results.ours, other)))
            for place in range(count)
        ]
        if set(cells) != {"\u2013"}:
            rows.append([other, *cells])
    text = (
        "The same ratios, over all settings, at one target alone: from the easiest of each task to "
        "its hardest."
    )
    places = [f"target {place + 1}" for place in range(count)]
    return f"{text}\n\n{markdown([f'of others over {results.ours}', *places], rows)}"


def _losses(results: Results) -> str:
    items = []
    for who in results.shown:
        table = {other: by_setting(results.over(who, other)) for other in results.rivals}
        for setting in results.runs:
            beaten = [
                f"{other} ({cell(row[setting])})"
                for other, row in table.items()
                if setting in row and row[setting].mean < 1
            ]
            if beaten:
                items.append(f"- {who} in {', '.join(setting)}: {', '.join(beaten)}")
        for setting in results.runs:
            runs = results.of(who, setting).values()
            missed = sum(line["seconds"] is None for line in runs)
            if missed:
                items.append(
                    f"- {who} missed the target in {missed} of {len(runs)} runs: "
                    f"{', '.join(setting)}"
                )
    if not results.rivals:
        return "No rival was run."
    if not items:
        return "In no setting that was run was a rival faster in the mean."
    return "Rivals that were faster in the mean, whether or not a loss is called:\n\n" + "\n".join(
        items
    )


def _overview(results: Results) -> dict[str, dict[str, Ratio]]:
    rows = {}
    for other in [BEST, *results.rivals, *results.changed]:
        row = {who: overall(results.over(who, other)) for who in results.shown if who != other}
        known = {who: ratio for who, ratio in row.items() if ratio is not None}
        if known:
            rows[other] = known
    return rows


def _settings(results: Results) -> dict[str, dict[str, Ratio]]:
    rows: dict[str, dict[str, Ratio]] = {}
    for who in results.shown:
        for setting, ratio in by_setting(results.over(who, BEST)).items():
            rows.setdefault(", ".join(setting), {})[who] = ratio
    return rows


def _drawn(results: Results) -> list[str]:
    """Ours, rounds that wait, and the rivals with the least ratio among those run the most."""
    found = {name: results.over(results.ours, name) for name in results.rivals}
    known = {name: each for name, each in found.items() if each}
    order = sorted(
        known,
        key=lambda name: (-len(known[name]), geometric_mean(list(known[name].values())).mean),
    )
    waiting = [name for name in results.ablations if name == WAITING]
    return [results.ours, *waiting, *order[:_DRAWN]]
