"""What tuning took and what it chose, by method."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from fedpace.bench.comparison import Setting
from fedpace.bench.page import markdown
from fedpace.bench.paired_tables import Results
from fedpace.bench.results import Line
from fedpace.bench.suite import Suite


def costs(results: Results) -> str:
    """Return a table: trainings and seconds that tuning and the compared runs took."""
    rows = []
    for method in results.methods:
        lines = _first_lines(results, method)
        tuned = [line["tuning"] for line in lines.values() if "tuning" in line]
        every = [line for s in lines for line in results.of(method, s).values()]
        if not lines:
            continue
        trainings = sorted({each["trainings"] for each in tuned})
        computing = sum(line.get("computing_seconds", 0.0) for line in every)
        rows.append([
            method, str(len(lines)), " or ".join(map(str, trainings)) or "–",
            _hours(sum(each["clock_seconds"] for each in tuned)) if tuned else "–",
            _hours(sum(each["computing_seconds"] for each in tuned)) if tuned else "–",
            str(len(every)), _hours(computing) if computing else "–",
        ])  # fmt: skip
    header = ["method", "settings", "trainings for tuning, each", "on the clock, h",
              "of a processor, h", "compared runs", "of a processor, h"]  # fmt: skip
    return f"Hours are sums over the settings that were run.\n\n{markdown(header, rows)}"


def choices(results: Results, suite: Suite | None) -> str:
    """Return tables of the chosen rate and size, and how many lie at the edge of their grid."""
    parts = ["Server rate (or local, where the server averages); cohort or noise ratio."]
    edges = _edges(results, suite)
    if edges:
        parts[0] += f" {edges}"
    for task, settings in results.tasks.items():
        rows = []
        for method in results.methods:
            lines = _first_lines(results, method)
            cells = [_chosen(lines[s]) if s in lines else "–" for s in settings]
            if set(cells) != {"–"}:
                rows.append([method, *cells])
        parts.append(markdown([task, *(network for _, network in settings)], rows))
    return "\n\n".join(parts)


def _first_lines(results: Results, method: str) -> dict[Setting, Line]:
    found = {setting: results.of(method, setting) for setting in results.runs}
    return {setting: next(iter(runs.values())) for setting, runs in found.items() if runs}


def _edges(results: Results, suite: Suite | None) -> str:
    if suite is None or suite.tuning_runs is None:
        return ""
    at: dict[str, Counter[str]] = {"rate": Counter(), "size": Counter()}
    count: Counter[str] = Counter()
    for method in results.methods:
        if method not in suite.methods:
            continue
        entry = suite.methods[method]
        grids = {"rate": suite.rates[entry.rates], "size": suite.sizes.get(entry.sizes or "", [])}
        for line in _first_lines(results, method).values():
            count[method] += 1
            for what, grid in grids.items():
                ordered = sorted(grid, key=_number) if what == "rate" else grid
                at[what][method] += len(ordered) > 1 and line[what] in (ordered[0], ordered[-1])
    told = [
        f"Of {count.total()} choices {found.total()} lie at the end of the grid of {what}s"
        + _each(found, count)
        for what, found in at.items()
    ]
    return " ".join(f"{each}." for each in told)


def _each(found: Counter[str], count: Counter[str]) -> str:
    """Whose they are, most first."""
    items = [f"{name} {number} of {count[name]}" for name, number in found.most_common() if number]
    return f" ({', '.join(items)})" if items else ""


def _number(table: Mapping[str, Any]) -> tuple[float, ...]:
    return tuple(value for _, value in sorted(table.items()) if isinstance(value, float))


def _chosen(line: Line) -> str:
    rate = line["rate"]
    value = rate.get("learning_rate", rate.get("server_learning_rate"))
    sizes = [
        f"{each:g}" if isinstance(each, float) else str(each) for each in line["size"].values()
    ]
    return "; ".join([*([] if value is None else [f"{value:g}"]), *sizes])


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.2f}"
