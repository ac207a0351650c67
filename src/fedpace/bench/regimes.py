"""The regime map: where our method gains how much, measured beside predicted."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from fedpace.bench.comparison import Setting, speedup, time_of
from fedpace.bench.results import Line
from fedpace.bench.suite import Suite
from fedpace.core.profile import Floats
from fedpace.reporting.style import styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RIVALS = ("uniform", "weighted")
"""Over which a plan says what it gains."""
_KEYS = ("upload_compute_ratio", "step_spread")


def has_regimes(suite: Suite | None) -> bool:
    """Whether the networks of a suite span a plane: every pair of the two keys' values, once."""
    if suite is None or not all(key in net for net in suite.networks.values() for key in _KEYS):
        return False
    points = [tuple(net[key] for key in _KEYS) for net in suite.networks.values()]
    ratios, spreads = (sorted(set(values)) for values in zip(*points, strict=True))
    pairs = {(x, y) for x in ratios for y in spreads}
    return min(len(ratios), len(spreads)) > 1 and len(points) == len(pairs) == len(set(points))


def measured_gain(lines: Sequence[Line], setting: Setting, ours: str, rival: str) -> float:
    """Return a rival's time over ours, equal finish for both; nan where one is not known."""
    found = speedup(
        time_of(lines, setting, ours, "equal-finish"),
        time_of(lines, setting, rival, "equal-finish"),
    )
    return np.nan if found is None else found.ratio


def predicted_gain(lines: Sequence[Line], setting: Setting, ours: str, rival: str) -> float:
    """Return what our first plan promised over the rival's best, median over the seeds."""
    promised = [
        line["predicted_gain"].get(rival, np.nan)
        for line in lines
        if (line["task"], line["network"], line["method"]) == (*setting, ours)
    ]
    return float(np.median(promised)) if promised else np.nan


@styled
def draw_regimes(lines: Sequence[Line], suite: Suite, ours: str) -> "Figure":
    """Gain over upload/compute ratio and spread of the devices, measured and predicted.

    Args:
        lines: of the suite.
        suite: `has_regimes`; of several tasks the median is drawn.
        ours: our method.
    """
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    kinds: list[tuple[str, Callable[[Sequence[Line], Setting, str, str], float]]] = [
        ("measured", measured_gain),
        ("predicted", predicted_gain),
    ]
    ratios, spreads = (sorted({net[key] for net in suite.networks.values()}) for key in _KEYS)
    tables = {
        (rival, kind): _table(suite, lambda s, f=gain, r=rival: f(lines, s, ours, r))
        for rival in RIVALS
        for kind, gain in kinds
    }
    known = np.concatenate([table[np.isfinite(table)] for table in tables.values()])
    # Even around 1, so that a loss looks like one.
    reach = max(1.5, float(np.max(np.maximum(known, 1 / known), initial=1.0)))
    made = Figure(figsize=(6.4, 5.0), layout="constrained")
    grid = made.subplots(len(RIVALS), len(kinds), sharex=True, sharey=True)
    for row, rival in zip(grid, RIVALS, strict=True):
        for axes, (kind, _) in zip(row, kinds, strict=True):
            table = tables[rival, kind]
            axes.imshow(
                table, origin="lower", aspect="auto", cmap="RdBu", norm=LogNorm(1 / reach, reach)
            )
            axes.grid(visible=False)
            axes.set_title(f"over {rival}, {kind}")
            for (y, x), value in np.ndenumerate(table):
                text = "–" if np.isnan(value) else f"{value:.2f}"
                strong = abs(np.log(value)) > 0.6 * np.log(reach)
                axes.text(x, y, text, ha="center", va="center", color="white" if strong else None)
            axes.set_xticks(range(len(ratios)), [f"{x:g}" for x in ratios])
            axes.set_yticks(range(len(spreads)), [f"{y:g}" for y in spreads])
    made.supxlabel("mean upload over mean computation time")
    made.supylabel("spread of the devices: standard deviation of ln(step time)")
    return made


def _table(suite: Suite, gain: Callable[[Setting], float]) -> Floats:
    """The median over the tasks, shape (spreads, ratios)."""
    ratios, spreads = (sorted({net[key] for net in suite.networks.values()}) for key in _KEYS)
    made = np.full((len(spreads), len(ratios)), np.nan)
    for name, net in suite.networks.items():
        values = [gain((s.task, s.network)) for s in suite.settings if s.network == name]
        seen = [value for value in values if np.isfinite(value)]
        if seen:
            made[spreads.index(net[_KEYS[1]]), ratios.index(net[_KEYS[0]])] = np.median(seen)
    return made
