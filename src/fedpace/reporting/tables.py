"""A run's summary as a table, for the terminal and for the page."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fedpace.reporting.units import bits_text, ratio_text, seconds_text, share_text, target_text

if TYPE_CHECKING:
    from rich.table import Table


def summary_rows(summary: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return the header and one row a method, as text.

    Args:
        summary: summary.json. Columns that no method has are left out.
    """
    methods = summary["methods"]
    first = next(iter(methods))
    header, columns = ["Method"], [list(methods)]
    steps = step_word(summary)
    if summary["target"] is not None:
        header += [f"Time to {target_text(summary['target'])}", f"{steps} to it"]
        columns += [
            [
                f"diverged at round {e['diverged']}" if e.get("diverged")
                else "not reached" if e["rounds_to_target"] is None
                else seconds_text(e["time_to_target_seconds"])
                for e in methods.values()
            ],
            [_count(e["rounds_to_target"]) for e in methods.values()],
        ]  # fmt: skip
        if len(methods) > 1:
            header.append(f"Time vs {first}")
            columns.append([ratio_text(summary["speedup"].get(name)) for name in methods])
    header += [f"{steps} run", "Clock", "Upload"]
    columns += [
        [
            _count(e["rounds"]) + (", diverged" if e.get("diverged") else "")
            for e in methods.values()
        ],
        [seconds_text(e["clock_seconds"]) for e in methods.values()],
        [bits_text(e["upload_bits"]) for e in methods.values()],
    ]
    for title, key in (
        ("Updates late by", "mean_staleness"),
        ("Still at work at a step", "mean_underway"),
    ):
        values = [e.get(key) for e in methods.values()]
        if any(value is not None for value in values):
            header.append(title)
            columns.append(["–" if value is None else f"{value:.1f}" for value in values])
    for metric in ("accuracy", "loss", "perplexity"):
        values = [e.get(f"final_{metric}") for e in methods.values()]
        if any(value is not None for value in values):
            header.append(f"Final {metric}")
            columns.append([share_text(value) for value in values])
    if any("epsilon_client" in e for e in methods.values()):
        header.append("Epsilon, largest")
        spent = [e.get("epsilon_max") for e in methods.values()]
        columns.append(["–" if value is None else f"{value:.3g}" for value in spent])
    return header, [list(row) for row in zip(*columns, strict=True)]


def step_word(summary: Mapping[str, Any]) -> str:
    """Return what the steps of a run's methods are called: rounds, beats, or both.

    Args:
        summary: summary.json.
    """
    words = {"synchronous": "rounds", "overlapping": "beats", "asynchronous": "steps"}
    found = [e.get("schedule", "synchronous") for e in summary["methods"].values()]
    return " or ".join(words[each] for each in words if each in found).capitalize()


def prediction_rows(summary: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return predicted against measured seconds, header and one row a method, as text.

    Of the methods whose rounds do not overlap; no header if there is none.

    Args:
        summary: summary.json.
    """
    header = ["Method", "Round, predicted", "Round, measured", "Measured over predicted"]
    header += ["All rounds, predicted", "All rounds, measured", "Verdict on the first plan"]
    rows = []
    for name, entry in summary["methods"].items():
        if entry.get("schedule") == "overlapping":
            continue
        predicted, measured = entry["predicted_round_seconds"], entry["mean_round_seconds"]
        rows.append([
            name, seconds_text(predicted), seconds_text(measured),
            f"{measured / predicted:.2f}" if predicted else "–",
            seconds_text(entry["predicted_seconds"]), seconds_text(entry["clock_seconds"]),
            f"{entry['planner']}: {entry['verdict']}",
        ])  # fmt: skip
    return (header, rows) if rows else ([], [])


def beat_rows(summary: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return what was predicted and measured of rounds that overlap, as text.

    Args:
        summary: summary.json.

    Returns:
        Header and one row a method; both empty where none overlap, or a version that did not say
        it wrote the summary.
    """
    header = ["Method", "Beat", "Updates, predicted", "Updates, counted"]
    header += [
        "Mean age of an update, predicted",
        "Mean age, measured",
        "Verdict on the first plan",
    ]
    rows = [
        [
            name, seconds_text(entry["mean_round_seconds"]),
            _count(round(entry["predicted_updates"])), _count(entry["counted_updates"]),
            seconds_text(entry["predicted_age_seconds"]), seconds_text(entry["mean_age_seconds"]),
            f"{entry['planner']}: {entry['verdict']}",
        ]
        for name, entry in summary["methods"].items()
        if "counted_updates" in entry
    ]  # fmt: skip
    return (header, rows) if rows else ([], [])


def answer_rows(summary: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return the metrics of generated answers, before and after; empty where there are none.

    Args:
        summary: summary.json.
    """
    generated = summary.get("generated")
    if not generated:
        return [], []
    metrics = list(generated["before"])
    each = {"before training": generated["before"], **generated["after"]}
    rows = [[name, *(share_text(values[m]) for m in metrics)] for name, values in each.items()]
    return ["Adapter", *metrics], rows


def summary_table(summary: Mapping[str, Any]) -> "Table":
    """Return a run's summary as a table for the terminal.

    Args:
        summary: summary.json.
    """
    from rich.table import Table
    from rich.text import Text

    header, rows = summary_rows(summary)
    # A column a method: there are fewer methods than numbers, and a terminal is 80 wide.
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column, name in enumerate(["", *(row[0] for row in rows)]):
        table.add_column(Text(name), justify="right" if column else "left")
    for name, *cells in zip(header[1:], *(row[1:] for row in rows), strict=True):
        table.add_row(Text(name), *(Text(cell) for cell in cells))
    return table


def _count(value: int | None) -> str:
    return "–" if value is None else f"{value:,}".replace(",", " ")
