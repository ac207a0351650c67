"""What the names on a page mean: tasks, networks and methods, all from the suite."""

from typing import Any

from fedpace.bench.page import markdown
from fedpace.bench.paired_tables import Results
from fedpace.bench.suite import Suite


def names(results: Results, suite: Suite) -> str:
    """Return what was trained to which targets, on which networks, and what each method is.

    Args:
        results: of the lines that are shown.
        suite: theirs.
    """
    parts = [_training(suite), _tasks(results, suite), _networks(results, suite)]
    told = [(n, suite.methods[n].about) for n in results.methods if n in suite.methods]
    if any(about for _, about in told):
        parts.append(markdown(["method", "what it is"], [[n, about or "–"] for n, about in told]))
    return "\n\n".join(parts)


def _training(suite: Suite) -> str:
    """The sections that all runs share, as the experiment file has them."""
    sections = (f"{name}: {_keys(table)}" for name, table in suite.experiment.items())
    return (
        "Seconds are those of the virtual clock ([what it models](clock.md)). All runs share, as "
        f"in [an experiment file](file-formats.md), {'; '.join(sections)}."
    )


def _tasks(results: Results, suite: Suite) -> str:
    rows = []
    for name in results.tasks:
        if name not in suite.tasks:
            continue
        task = suite.tasks[name]
        targets = ", ".join(task.targets or [str(task.target)])
        relative = ", shares of the first loss" if task.relative else ""
        rows.append([name, targets + relative, _sections(task.experiment)])
    return markdown(["task", "targets", "what else differs"], rows)


def _networks(results: Results, suite: Suite) -> str:
    found = dict.fromkeys(network for _, network in results.runs)
    rows = [[n, _keys(suite.networks[n])] for n in found if n in suite.networks]
    return markdown(["network", "`[network]`"], rows)


def _sections(tables: dict[str, Any]) -> str:
    return "; ".join(f"{name}: {_keys(table)}" for name, table in tables.items())


def _keys(table: dict[str, Any]) -> str:
    return ", ".join(f"`{key} = {_value(value)}`" for key, value in table.items())


def _value(value: Any) -> str:
    """As in the suite file; of a path, which differs between machines, the name alone."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    text = str(value).rsplit("/", 1)[-1].removeprefix("data:").removeprefix("model:")
    return f'"{text}"' if isinstance(value, str) else text
