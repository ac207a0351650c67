"""What the plans promised beside what was measured."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from fedpace.bench.comparison import Setting
from fedpace.bench.paired import Ratio, geometric_mean
from fedpace.bench.paired_tables import Results


@dataclass(frozen=True, slots=True)
class Promise:
    """A gain of one of our methods over another in one setting."""

    setting: Setting
    method: str
    rival: str
    predicted: float
    """The rival's planned time over ours, geometric mean over the seeds of the pairs."""
    measured: Ratio


@dataclass(frozen=True, slots=True)
class Honesty:
    """How far promises and measurements agree."""

    rank_correlation: float
    """Spearman's; nan with fewer than three promises."""
    median_factor: float
    """exp(median of |ln(measured / predicted)|), at least 1."""
    same_side: float
    """Share of the promises that lie on the measurement's side of 1."""
    bias: float
    """Geometric mean of measured over predicted."""


def promises(results: Results) -> list[Promise]:
    """Return every promise over a method that was run, by our methods and what was changed."""
    found = []
    for method in (results.ours, *results.changed):
        named = {
            rival
            for setting in results.runs
            for line in results.of(method, setting).values()
            for rival in line["predicted_gain"]
        }
        for rival in (name for name in results.methods if name in named):
            for setting, each in results.over(method, rival).items():
                own = results.of(method, setting)
                said = [own[seed]["predicted_gain"].get(rival) for seed in each.seeds]
                if all(said):
                    predicted = float(np.exp(np.mean(np.log(said))))
                    ratio = geometric_mean([each])
                    found.append(Promise(setting, method, rival, predicted, ratio))
    return found


def honesty(found: Sequence[Promise]) -> Honesty:
    """Compare promises with what was measured.

    Args:
        found: at least one.
    """
    predicted = np.log([each.predicted for each in found])
    measured = np.log([each.measured.mean for each in found])
    ranks = rankdata(predicted), rankdata(measured)
    enough = len(found) > 2 and all(np.ptp(each) > 0 for each in ranks)
    return Honesty(
        rank_correlation=float(np.corrcoef(*ranks)[0, 1]) if enough else np.nan,
        median_factor=float(np.exp(np.median(np.abs(measured - predicted)))),
        same_side=float(np.mean(predicted * measured > 0)),
        bias=float(np.exp(np.mean(measured - predicted))),
    )
