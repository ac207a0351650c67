"""A run folder in, one self-contained HTML page out: no script, nothing loaded from anywhere."""

import re
import shlex
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from fedpace.core.errors import MissingExtraError
from fedpace.core.plan import Plans, RoundSeconds
from fedpace.reporting import plots
from fedpace.reporting.deviation import deviations
from fedpace.reporting.headline import headline
from fedpace.reporting.measured import errors, measured_times
from fedpace.reporting.metrics import (
    TimeSplit,
    age_seconds,
    curve,
    expected_participation,
    followed,
    overlapped,
    participation_counts,
    time_split,
)
from fedpace.reporting.privacy import privacy_notes
from fedpace.reporting.style import PALETTE
from fedpace.reporting.svg import inline_svg
from fedpace.reporting.tables import answer_rows, beat_rows, prediction_rows, summary_rows
from fedpace.reporting.units import seconds_text, target_text
from fedpace.run_folder import schema
from fedpace.run_folder.atomic import write_bytes
from fedpace.run_folder.claim import held
from fedpace.run_folder.reader import check_run_folder, read_run
from fedpace.run_folder.schema import Run

_CLIENT_ROWS = 100
"""Clients listed in the page; all of them are in clients.csv and plan.json."""

_UNIT = re.compile(r"(?<=\d) (?=(?:d|h|min|s)\b)|(?<=min|. [dh]) (?=\d)")
"""Where a line of the headline must not break: inside a duration."""


@dataclass(frozen=True, slots=True)
class _Figure:
    svg: Any
    title: str
    caption: str


def write_report(folder: Path) -> Path:
    """Write report.html into a run folder; the same folder gives the same page.

    Args:
        folder: as `fedpace run` writes it.

    Returns:
        The path of the page.

    Raises:
        InputError: not a complete run folder, or one in use.
        MissingExtraError: matplotlib or jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, StrictUndefined
        from markupsafe import Markup
    except ImportError:
        raise MissingExtraError("jinja2", "plots") from None
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = files("fedpace.reporting").joinpath("report.html.j2").read_text("utf-8")
    check_run_folder(folder)  # before anything is written into it
    with held(folder):
        page = environment.from_string(template).render(_content(read_run(folder), Markup))
        path = folder / schema.REPORT
        write_bytes(path, page.encode("utf-8", "replace"))
    return path


def _tokens(summary: Mapping[str, Any]) -> list[str]:
    """Return the line on the data's tokens and what was cut of them."""
    told = (summary.get("tokens") or {}).get("told")
    return [f"Trained on {told}."] if told else []


def _content(run: Run, safe: Callable[[str], Any]) -> dict[str, Any]:
    """Return what the page's template is filled with."""
    methods = list(run.summary["methods"])
    in_force = {name: followed(plans, len(run.records[name])) for name, plans in run.plans.items()}
    run = replace(run, plans=in_force)
    return dict(
        headline=_UNIT.sub("\u00a0", headline(run.summary, run.target, run.records)),
        methods=methods,
        client_count=len(run.clients),
        target=target_text(run.summary["target"]),
        clock=run.summary.get("clock", "virtual"),
        notes=[
            *run.notes,
            *_tokens(run.summary),
            *privacy_notes(run),
            *_rates(run),
            *deviations(run),
        ],
        summary=summary_rows(run.summary),
        overlaps=any(map(overlapped, run.records.values())),
        prediction=prediction_rows(run.summary),
        beats=beat_rows(run.summary),
        samples=run.summary.get("samples") or [],
        answers=answer_rows(run.summary),
        asked=(run.summary.get("generated") or {}).get("questions"),
        figures=[_Figure(safe(f.svg), f.title, f.caption) for f in _figures(run)],
        clients=_client_rows(run),
        clients_shown=min(len(run.clients), _CLIENT_ROWS),
        experiment=run.experiment,
        environment=run.summary["environment"],
        command=" ".join(
            [
                run.summary.get("command", "fedpace run"),
                "experiment.toml",
                *(f"--method {shlex.quote(name)}" for name in methods),
            ]
        ),
        palette=PALETTE,
    )


def _figures(run: Run) -> Iterator[_Figure]:
    metric = _metric(run)
    reached = {n: e["time_to_target_seconds"] for n, e in run.summary["methods"].items()}
    curves = {}
    for name, records in run.records.items():
        initial = run.summary["methods"][name].get(f"initial_{metric}")
        curves[name] = curve(records, metric, None if initial is None else {metric: initial})
    made = plots.learning_curves(curves, metric, run.target, reached)
    title = f"{metric.capitalize()} against wall-clock time"
    dot = " A dot marks the first evaluation that reached the target." if run.target else ""
    when = "Measured on held-out data after a step of the server."
    yield _Figure(inline_svg(made, "curve", title), title, when + dot)

    splits = {}
    for name, records in run.records.items():
        if overlapped(records):
            continue  # a beat has no last one to wait for
        end = reached[name]
        splits[name] = time_split([r for r in records if end is None or r.clock_seconds <= end])
    if splits:
        title = "Where the time went"
        until = (
            "Until the target, or the end of the run where it was not reached."
            if run.target
            else "Over the whole run."
        )
        shares = "; ".join(f"{name}: {_shares(split)}" for name, split in splits.items())
        yield _Figure(
            inline_svg(plots.time_splits(splits), "split", f"{title}. {shares}."), title,
            f"{until} A round is split as its mean participant sees it: compute (download and "
            "local steps), upload, waiting for the last to finish; overhead is the rest.",
        )  # fmt: skip

    availability, count = run.clients.availability, len(run.clients)
    counts = {n: participation_counts(r, count) for n, r in run.records.items()}
    expected = {
        n: expected_participation(run.plans[n], len(r), availability)
        for n, r in run.records.items()
    }
    title = "Who took part how often"
    yield _Figure(
        inline_svg(plots.participation(counts, expected), "participation", title), title,
        "How many times each client took part, and how many its plan expects: sampling "
        "probability times availability, summed over the rounds; of beats, those in which an "
        "update of it was to count. Dots scatter about the line by chance.",
    )  # fmt: skip

    yield from _times(run)
    if run.times:
        off = errors(run.times)
        title = "Each round and each client, predicted and measured"
        yield _Figure(
            inline_svg(measured_times(run.times), "measured", title), title,
            "On a network that the kernel shapes. Predicted: the virtual clock, with who took part "
            f"and what they sent, and [network] overhead_seconds. {len(run.times)} rounds: "
            f"{off['measured_mean']:.2f} s in the mean, {off['predicted_mean']:.2f} s predicted, a "
            f"round off by {off['median_error']:.1%} in the median. A client's end is without the "
            "overhead.",
        )  # fmt: skip
    for i, name in enumerate(run.plans):
        yield from _plan_figure(run, name, f"plan-{i}")


def _times(run: Run) -> Iterator[_Figure]:
    """How long rounds took where methods wait, how old updates were where they do not."""
    renewed = " A renewed plan is shown by the mean over its renewals alone."
    renewed = renewed if any(len(plans) > 1 for plans in run.plans.values()) else ""
    late = [n for n, e in run.summary["methods"].items() if e.get("schedule") == "overlapping"]
    waits = {
        n: np.array([x.round_seconds for x in r]) for n, r in run.records.items() if n not in late
    }
    if waits:
        title = "Round time, measured and predicted"
        predicted = {n: _predicted(run, n) for n in waits}
        made = plots.measured_against_predicted(waits, predicted, methods=run.records)
        yield _Figure(
            inline_svg(made, "rounds", title), title,
            f"Share of rounds that took no longer than the time below it.{renewed}",
        )  # fmt: skip
    ages = {n: age for n in late if len(age := age_seconds(run.records[n]))}
    if ages:
        title = "Age of an update, measured and predicted"
        predicted = {n: _predicted_age(run.plans[n]) for n in ages}
        made = plots.measured_against_predicted(ages, predicted, "age of an update", run.records)
        yield _Figure(
            inline_svg(made, "ages", title), title,
            "Where rounds overlap: from the beat at which its client began to the end of the one "
            f"in which it counts.{renewed}",
        )  # fmt: skip


def _shares(split: TimeSplit) -> str:
    parts = {part.removesuffix("_seconds"): seconds for part, seconds in asdict(split).items()}
    total = sum(parts.values()) or 1.0
    return ", ".join(f"{part} {abs(seconds) / total:.0%}" for part, seconds in parts.items())


def _plan_figure(run: Run, name: str, identifier: str) -> Iterator[_Figure]:
    first, plan = run.plans[name][-1]
    panels = plots.varying(plan)
    if not panels:
        return
    title = f"Plan of {name} against device and link"
    same = "" if len(panels) == 2 else " The other quantity is the same for every client."
    step = "round" if plan.beat_seconds is None else "beat"
    renewed = (
        f" The plan shown is the last of {len(run.plans[name])} that were in force, from {step} "
        f"{first + 1} on; the verdict above is on the first."
    )
    yield _Figure(
        inline_svg(
            plots.plan_map(
                run.start_seconds[: len(plan)], run.upload_seconds[: len(plan)], plan
            ),
            identifier, title,
        ),
        title,
        "One dot a client: the slower its device the further right, the slower its link the "
        f"higher, both at full rank. Large and bright is much.{same}{renewed if first else ''}",
    )  # fmt: skip


def _metric(run: Run) -> str:
    if run.target is not None:
        return run.target.metric
    entries = run.summary["methods"].values()
    return "accuracy" if any(e.get("final_accuracy") is not None for e in entries) else "loss"


def _rates(run: Run) -> list[str]:
    """Say for each method how far the server's rate fell, if it was to follow the noise."""
    try:
        asked = tomllib.loads(run.experiment)
    except tomllib.TOMLDecodeError:  # the page shows whatever stands there
        return []
    if asked.get("training", {}).get("server_decay", "none") == "none":
        return []
    notes = []
    for name, records in run.records.items():
        halved = np.cumsum([record.stepped_back_to is not None for record in records])
        given = np.array([record.server_rate_factor or 1.0 for record in records])
        given[1:] *= 2.0 ** halved[:-1]  # what divergence took is told elsewhere
        if len(given) and given.min() < given[0]:
            notes.append(
                f"The server's rate of {name} fell from {given[0]:.2g} to {given.min():.2g} times "
                "server_learning_rate, as the noise of its steps grew."
            )
        else:
            notes.append(
                f"The server's rate of {name} did not fall, though server_decay = 'noise': the "
                "noise of its steps did not grow, or too little of it was known."
            )
    return notes


def _predicted(run: Run, name: str) -> RoundSeconds | None:
    plans, mean = run.plans[name], run.summary["methods"][name]["predicted_round_seconds"]
    if len(plans) == 1 or mean is None:
        return plans[0][1].round_seconds
    return RoundSeconds(mean, np.nan, np.nan)


def _predicted_age(plans: Plans) -> RoundSeconds | None:
    age = plans[-1][1].staleness_seconds
    return None if age is None or len(plans) > 1 else RoundSeconds(age.mean, np.nan, age.p95)


def _client_rows(run: Run) -> tuple[list[str], list[list[str]]]:
    header = ["Client", "Data weight", "Starts to send", "Sends alone"]
    biased = {name: plans[-1][1].aggregation_weight for name, plans in run.plans.items()}
    for name, weight in biased.items():
        every = ("q", "k", "rounds") if weight is None else ("counts as", "q", "k", "rounds")
        header += [f"{name}: {what}" for what in every]
    counts = {n: participation_counts(r, len(run.clients)) for n, r in run.records.items()}
    rows = []
    for n in np.argsort(-run.clients.data_weight, kind="stable")[:_CLIENT_ROWS]:
        row = [
            str(run.clients.client_id[n]), f"{run.clients.data_weight[n]:.4f}",
            seconds_text(float(run.start_seconds[n])), seconds_text(float(run.upload_seconds[n])),
        ]  # fmt: skip
        for name, plans in run.plans.items():
            plan = plans[-1][1]
            if n >= len(plan):  # it entered under a later method
                row += [*([] if biased[name] is None else ["–"]), "–", "–", "0"]
                continue
            if (weight := biased[name]) is not None:
                row.append(f"{weight[n]:.4f}")
            q = plan.participation_probability()[n]
            row += [f"{q:.3g}", str(plan.sketch_rank[n]), str(counts[name][n])]
        rows.append(row)
    return header, rows
