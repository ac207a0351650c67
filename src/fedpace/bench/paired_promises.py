"""The parts of a page on what the plans promised: beside what was measured, and as a map."""

import numpy as np

from fedpace.bench.honesty import honesty, promises
from fedpace.bench.page import markdown
from fedpace.bench.paired_tables import WAITING, Results, cell
from fedpace.bench.regimes import Gains

REGIMES = (
    "Time of rounds that wait over that of rounds that overlap: geometric mean over the seeds as "
    "measured, and as the first plans promised, by how long an upload takes for a computation "
    "(of float32 values) and by how far devices differ."
)
"""What the map shows."""


def promised(results: Results, picture: str) -> list[str]:
    """Return the paragraphs, with a picture, on how far promises were kept."""
    found = promises(results)
    if not found:
        return ["No plan promised a gain over a method that was run."]
    seen = honesty(found)
    rank = "" if np.isnan(seen.rank_correlation) else (
        f" Their rank correlation with what was measured is {seen.rank_correlation:.2f}."
    )  # fmt: skip
    below = "" if any(each.predicted < 1 for each in found) else ", below which none is"
    text = (
        f"Before a run the plan says what it gains over others at their best: {len(found)} "
        "promises over methods that were run, each the geometric mean over the seeds, at the "
        f"noise ratio that tuning chose.{rank} In the median the measured gain is off by a factor "
        f"of {seen.median_factor:.2f}; over all it is {seen.bias:.2f} times the promised one; "
        f"{seen.same_side:.0%} lie on the measurement's side of 1{below}. A plan promises nothing "
        "over servers that do not wait."
    )
    rows = [
        [f"{each.method} over {each.rival}", ", ".join(each.setting), f"{each.predicted:.2f}",
         cell(each.measured)]
        for each in found
    ]  # fmt: skip
    return [text, picture, markdown(["", "setting", "promised", "measured"], rows)]


def regimes(results: Results) -> dict[str, Gains]:
    """Panels of the map: each of ours over rounds that wait, measured beside promised."""
    found = [each for each in promises(results) if each.rival == WAITING]
    panels: dict[str, Gains] = {}
    for who in (results.ours, *results.beside):
        own = [each for each in found if each.method == who]
        panels[f"{who}, measured"] = {each.setting: each.measured.mean for each in own}
        panels[f"{who}, promised"] = {each.setting: each.predicted for each in own}
    return panels
