"""Where a prediction is far from what was measured: by what, and what the next plan knows of it."""

from collections.abc import Sequence

import numpy as np

from fedpace.core.record import RoundRecord
from fedpace.reporting.units import seconds_text
from fedpace.run_folder.schema import Run

FAR = 2.0
"""Ratio from which on a prediction is said to be far from what was measured."""


def deviations(run: Run) -> list[str]:
    """Return a note for each method whose rounds took twice, or half, what was predicted.

    Args:
        run: what the folder holds.
    """
    notes = []
    measured_clock = run.summary.get("clock", "virtual") == "measured"
    for name, entry in run.summary["methods"].items():
        predicted, measured = entry["predicted_round_seconds"], entry["mean_round_seconds"]
        if not predicted or not measured or 1 / FAR < measured / predicted < FAR:
            continue
        notes.append(
            f"A round of {name} took {seconds_text(measured)}, {measured / predicted:.1f} times "
            f"the {seconds_text(predicted)} that its plan predicted. {_parts(run.records[name])} "
            + _known(measured_clock, len(run.plans[name]) > 1)
        )
    return notes


def _parts(records: Sequence[RoundRecord]) -> str:
    """Say of what a round's seconds consist."""
    people = [p for record in records for p in record.participants]
    overheads = [r.overhead_seconds for r in records if r.overhead_seconds is not None]
    told = []
    if people:
        start = float(np.mean([p.start_seconds for p in people]))
        send = float(np.mean([p.upload_seconds for p in people]))
        told = [
            f"its mean participant began to send after {seconds_text(start)}",
            f"sent for {seconds_text(send)}",
        ]
    if overheads:
        told.append(
            f"and {seconds_text(float(np.mean(overheads)))} were overhead: neither training nor "
            "transfer, but messages, polling and the server's work"
        )
    return f"In the mean over its rounds, {', '.join(told)}." if told else ""


def _known(measured_clock: bool, renewed: bool) -> str:
    if not measured_clock:
        return (
            "The clock is virtual and charges for the network that was planned for, so the rest is "
            "chance: who took part."
        )
    if renewed:
        return (
            "Plans renewed during the run know of it: they are made for the seconds that were "
            "measured (estimates.csv), overhead included."
        )
    return (
        "The plan was made before the run, for devices and links as [network] draws them, and was "
        "not renewed; with [planner] replan_every the next plans are made for the seconds that "
        "were measured (estimates.csv), overhead included."
    )
