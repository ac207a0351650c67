"""The regime map: where how much is gained, measured beside predicted."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from fedpace.bench.comparison import Setting
from fedpace.bench.suite import Suite
from fedpace.core.profile import Floats
from fedpace.reporting.style import styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Gains = Mapping[Setting, float]
"""What is shown of a setting, above 1 where ours is faster."""
_KEYS = ("upload_compute_ratio", "step_spread")


def has_regimes(suite: Suite | None) -> bool:
    """Whether the networks of a suite span a plane: every pair of the two keys' values, once."""
    if suite is None or not all(key in net for net in suite.networks.values() for key in _KEYS):
        return False
    points = [tuple(net[key] for key in _KEYS) for net in suite.networks.values()]
    ratios, spreads = (sorted(set(values)) for values in zip(*points, strict=True))
    pairs = {(x, y) for x in ratios for y in spreads}
    return min(len(ratios), len(spreads)) > 1 and len(points) == len(pairs) == len(set(points))


@styled
def draw_regimes(suite: Suite, panels: Mapping[str, Gains]) -> "Figure":
    """Gains over upload/compute ratio and spread of the devices, two panels a row.

    Args:
        suite: `has_regimes`; of several tasks the median is drawn.
        panels: title -> the gains; a setting without one has a dash.
    """
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    ratios, spreads = (sorted({net[key] for net in suite.networks.values()}) for key in _KEYS)
    tables = {title: _table(suite, gains) for title, gains in panels.items()}
    known = np.concatenate([table[np.isfinite(table)] for table in tables.values()])
    # Even around 1, so that a loss looks like one.
    reach = max(1.5, float(np.max(np.maximum(known, 1 / known), initial=1.0)))
    rows = -(-len(tables) // 2)
    made = Figure(figsize=(6.4, 2.3 * rows + 0.4), layout="constrained")
    grid = made.subplots(rows, 2, sharex=True, sharey=True, squeeze=False)
    for axes, (title, table) in zip(grid.ravel(), tables.items(), strict=False):
        axes.imshow(
            table, origin="lower", aspect="auto", cmap="RdBu", norm=LogNorm(1 / reach, reach)
        )
        axes.grid(visible=False)
        axes.set_title(title)
        for (y, x), value in np.ndenumerate(table):
            text = "–" if np.isnan(value) else f"{value:.2f}"
            strong = abs(np.log(value)) > 0.6 * np.log(reach)
            axes.text(x, y, text, ha="center", va="center", color="white" if strong else None)
        axes.set_xticks(range(len(ratios)), [f"{x:g}" for x in ratios])
        axes.set_yticks(range(len(spreads)), [f"{y:g}" for y in spreads])
    made.supxlabel("mean upload over mean computation time")
    made.supylabel("spread of the devices: standard deviation of ln(step time)")
    return made


def _table(suite: Suite, gains: Gains) -> Floats:
    """The median over the tasks, shape (spreads, ratios)."""
    ratios, spreads = (sorted({net[key] for net in suite.networks.values()}) for key in _KEYS)
    made = np.full((len(spreads), len(ratios)), np.nan)
    for name, net in suite.networks.items():
        places = [(s.task, s.network) for s in suite.settings if s.network == name]
        if seen := [gains[place] for place in places if place in gains]:
            made[spreads.index(net[_KEYS[1]]), ratios.index(net[_KEYS[0]])] = np.median(seen)
    return made
