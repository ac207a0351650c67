"""docs/results.md from the lines of a results file; nothing in it is written by hand."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from fedpace.bench.comparison import (
    Setting,
    Speedup,
    Time,
    our_methods,
    prediction_errors,
    rivals,
    settings_of,
    table,
    time_of,
)
from fedpace.bench.figures import draw_curves, draw_gains
from fedpace.bench.results import Line
from fedpace.bench.suite import Suite
from fedpace.reporting.units import seconds_text

_HALF, _BEST, _STRONG, _NEVER = 2.3, 4.0, 1.3, 0.95
"""What was set out to reach; see `_claims`."""
_RULES = {"equal-finish": "equal finish", "equal-share": "equal share"}


def write_page(
    lines: Sequence[Line], out: Path, *, command: str, suite: Suite | None = None
) -> list[Path]:
    """Write the page and its figures.

    Args:
        lines: of a results file, of one suite.
        out: the Markdown file; figures go into the folder "img" beside it.
        command: how to make the page again.
        suite: for what it is for, and what of it has not been run.

    Returns:
        The files written.
    """
    lines = in_order(lines, suite)
    ours = our_methods(lines)[0]
    others = rivals(lines, ["published", "sampler"])
    name = lines[0]["suite"]
    images = out.parent / "img"
    images.mkdir(parents=True, exist_ok=True)
    figures = {
        "curves": images / f"results-{name}-curves.png",
        "gains": images / f"results-{name}-gains.png",
    }
    draw_curves(lines, ours, others).savefig(figures["curves"], dpi=120)
    draw_gains(lines, ours).savefig(figures["gains"], dpi=120)
    share = table(lines, ours, others, "equal-share")
    finish = table(lines, ours, others, "equal-finish")
    changed = rivals(lines, ["ablation"])
    parts = [
        f"# Results: {name}",
        f"{'' if suite is None else suite.about + ' '}Made by `{command}`; the file "
        "that it reads holds a line "
        "for each run with its command, commit and machine. Times are virtual wall-clock seconds "
        "to the target on held-out test data: median over the seeds (fastest to slowest; how many "
        "seeds reached it, where not all did), counted at the evaluation that saw it. "
        "Learning rate and cohort of every method are tuned on a tenth of the training data "
        "with a seed of its own. \u201c> 3.1\u201d: the other method had not reached the target "
        "when its budget ended, at 3.1 times our time.",
        "Methods of aggregation move by the server's plain average, as in their papers. Ways "
        "to sample are given our aggregation and server Adam, so that a comparison with them is "
        "one of sampling alone; what Adam brings is in the ablation.",
        *missing(lines, suite),
        "## What was to be shown",
        _claims(share, finish, others),
        "## Seconds to the target",
        "Equal finish: all participants of a round finish together, as in ours. Equal share: of "
        "the band, as most papers assume.",
        _times(lines, ours, others),
        f"![Held-out metric against the clock](img/{figures['curves'].name})",
        "## Speed-up over each method as published: its own sampling, equal share",
        _speedups(share, others),
        "## Speed-up over each method with equal finish and its best cohort",
        _speedups(finish, others),
        f"![Speed-up by setting, measured and predicted](img/{figures['gains'].name})",
    ]
    if changed:
        parts += [
            "## Ablation: ours with one thing changed",
            "Time of the changed method over ours; above 1, the change costs time.",
            _speedups(table(lines, ours, changed, "equal-finish"), changed),
        ]
    parts += [
        "## Where it does not help",
        _losses(
            {s: time_of(lines, s, ours, "equal-finish") for s in settings_of(lines)},
            finish,
            share,
        ),
        "## Predicted against measured time",
        predictions(lines),
    ]
    out.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return [out, *figures.values()]


Table = dict[Setting, dict[str, Speedup | None]]


def _claims(share: Table, finish: Table, others: Sequence[str]) -> str:
    rows = []
    for method in others:
        published = [_ratio(row[method]) for row in share.values() if row.get(method)]
        equal = [_ratio(row[method]) for row in finish.values() if row.get(method)]
        strong = [
            _ratio(row[method])
            for (_, network), row in finish.items()
            if row.get(method) and "mild" not in network
        ]
        rows.append([
            method,
            str(len(equal)),
            f"{np.mean(np.array(published) >= _HALF):.0%}" if published else "–",
            f"{max(published):.2f}" if published else "–",
            f"{np.median(strong):.2f}" if strong else "–",
            f"{min(equal):.2f}" if equal else "–",
        ])  # fmt: skip
    header = [
        "method", "settings", f"as published: settings with at least {_HALF:g}x",
        "as published: best setting", "equal finish: median, strong heterogeneity",
        "equal finish: worst setting",
    ]  # fmt: skip
    text = (
        f"Set out to reach: {_HALF:g}x in half of the settings and {_BEST:g}x in the best against "
        f"every method as published; {_STRONG:g}x in the median setting of strong heterogeneity "
        f"against every method with equal finish; nowhere below {_NEVER:g}x. Lower bounds count "
        "as they stand."
    )
    return f"{text}\n\n{markdown(header, rows)}"


def _times(lines: Sequence[Line], ours: str, others: Sequence[str]) -> str:
    parts = []
    for setting in settings_of(lines):
        rows = []
        for method in [ours, *others]:
            cells = [seconds_cell(time_of(lines, setting, method, rule)) for rule in _RULES]
            if any(cells):
                rows.append([method, *(cell or "–" for cell in cells)])
        parts += [f"**{', '.join(setting)}**", markdown(["seconds", *_RULES.values()], rows)]
    return "\n\n".join(parts)


def seconds_cell(found: Time | None) -> str:
    """Return the median, the spread, and how many arrived; nothing for a method not run."""
    if found is None:
        return ""
    text = ("" if found.reached else "> ") + f"{found.seconds:.4g}"
    if found.runs_reached:
        slowest = "" if np.isinf(found.high) else f"{found.high:.4g}"
        text += f" ({found.low:.4g}–{slowest or '…'})"
    if found.runs_reached < found.runs:
        text += f", {found.runs_reached}/{found.runs}"
    return text


def in_order(lines: Sequence[Line], suite: Suite | None) -> list[Line]:
    """The lines in the order of the suite file, of the kinds that it has now."""
    if suite is None:
        return list(lines)
    settings = [(s.task, s.network) for s in suite.settings]
    methods = list(suite.methods)

    def place(line: Line) -> tuple[int, int]:
        setting, method = (line["task"], line["network"]), line["method"]
        return (
            settings.index(setting) if setting in settings else len(settings),
            methods.index(method) if method in methods else len(methods),
        )

    kinds = {name: method.kind for name, method in suite.methods.items()}
    told = [{**line, "kind": kinds.get(line["method"], line["kind"])} for line in lines]
    return sorted(told, key=place)


def missing(lines: Sequence[Line], suite: Suite | None) -> list[str]:
    """What of the suite has not been run, as a paragraph; nothing if all has."""
    if suite is None:
        return []
    ran = {(line["task"], line["network"], line["method"]) for line in lines}
    absent: dict[str, list[str]] = {}
    for setting in suite.settings:
        wanted = suite.methods_in(setting)
        left = [n for n in wanted if (setting.task, setting.network, n) not in ran]
        if left:
            what = "everything" if len(left) == len(wanted) else ", ".join(left)
            absent.setdefault(what, []).append(str(setting))
    parts = []
    old = sorted(
        {
            (line["task"], line["network"], line["method"])
            for line in lines
            if line["method"] not in suite.methods
            or line["digest"] != suite.digest(line["task"], line["network"], line["method"])
        }
    )
    if old:
        items = [
            f"- {', '.join(m for t, n, m in old if (t, n) == setting)}: in {', '.join(setting)}"
            for setting in dict.fromkeys((task, network) for task, network, _ in old)
        ]
        parts = [
            "**From an earlier version of the suite** (other grids, targets or budgets; to be run "
            "again):",
            "\n".join(items),
        ]
    if few := _fewer_seeds(lines, suite):
        items = [f"- {what}: in {'; '.join(where)}" for what, where in few.items()]
        parts += [f"**Not every one of the {len(suite.seeds)} seeds yet**:", "\n".join(items)]
    if absent:
        items = [f"- {what}: in {'; '.join(where)}" for what, where in absent.items()]
        parts += [
            "**Not run yet** (the command of the lines goes on where it stopped):",
            "\n".join(items),
        ]
    return parts


def unsaved(lines: Sequence[Line]) -> str:
    """Say how many lines are of a folder with changes that were not committed; "" of none."""
    count = sum(line.get("commit", "").endswith("-dirty") for line in lines)
    if not count:
        return ""
    return (
        f" {count} of {len(lines)} were run in a folder with changes beside the commit, "
        "which may be no more than new lines of this file."
    )


def _fewer_seeds(lines: Sequence[Line], suite: Suite) -> dict[str, list[str]]:
    """Methods with their number of seeds -> the settings in which they have no more."""
    ran: dict[tuple[str, str], set[int]] = {}
    for line in lines:
        if line["seed"] in suite.seeds:
            ran.setdefault((f"{line['task']}, {line['network']}", line["method"]), set()).add(
                line["seed"]
            )
    by_setting: dict[str, dict[str, int]] = {}
    for (setting, method), seeds in ran.items():
        by_setting.setdefault(setting, {})[method] = len(seeds)
    few: dict[str, list[str]] = {}
    for setting, counts in by_setting.items():
        short = {name: count for name, count in counts.items() if count < len(suite.seeds)}
        if len(short) == len(counts) > 1 and len(set(counts.values())) == 1:
            short = {"everything": next(iter(counts.values()))}
        if short:
            what = ", ".join(f"{name} ({count})" for name, count in short.items())
            few.setdefault(what, []).append(setting)
    return few


def _speedups(found: Table, methods: Sequence[str]) -> str:
    rows = [
        [", ".join(setting), *(_cell(row.get(method)) for method in methods)]
        for setting, row in found.items()
        if any(row.get(method) for method in methods)
    ]
    medians = []
    for method in methods:
        values = [_ratio(row[method]) for row in found.values() if row.get(method)]
        medians.append(f"**{np.median(values):.2f}**" if values else "–")
    return markdown(["setting", *methods], [*rows, ["**median**", *medians]])


def _losses(own: dict[Setting, Time | None], finish: Table, share: Table) -> str:
    worse = [
        f"- {task}, {network}: {method} needs {ratio.ratio:.2f} of our time ({rule})."
        for rule, found in (("equal finish", finish), ("equal share", share))
        for (task, network), row in found.items()
        for method, ratio in row.items()
        if ratio is not None and ratio.exact and ratio.ratio < 1
    ]
    missed = [
        f"- {task}, {network}: ours did not reach the target."
        for (task, network), time in own.items()
        if time is not None and not time.reached
    ]
    return "\n".join([*missed, *worse]) or "In no setting that was run was another method faster."


def predictions(lines: Sequence[Line]) -> str:
    """Return how far the clock was from the plan's, in a sentence."""
    errors = prediction_errors(lines)
    if not errors:
        return "No run has a prediction."
    return (
        f"The planner's prediction of the clock at the end of a run of rounds that wait (its mean "
        f"round, times the rounds run) was off by {np.median(errors):.1%} in the median over "
        f"{len(errors)} runs, by "
        f"{np.quantile(errors, 0.9):.1%} in nine of ten, by {max(errors):.1%} at most. The longest "
        f"run took {seconds_text(max(line['end_seconds'] for line in lines))} on the clock."
    )


def _cell(found: Speedup | None) -> str:
    if found is None:
        return "–"
    return ("" if found.exact else "> ") + f"{found.ratio:.2f}"


def _ratio(found: Speedup | None) -> float:
    return np.nan if found is None else found.ratio


def markdown(header: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table."""
    header = list(header)
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
