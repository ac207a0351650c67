"""The predicted round time against listed and simulated rounds, over random populations.

The populations and the methods are those of benchmarks/round_time_accuracy.py, which prints the
table of docs/round-time.md.
"""

import importlib.util
import sys
from pathlib import Path

import pytest

_FILE = Path(__file__).parents[3] / "benchmarks" / "round_time_accuracy.py"
_SPEC = importlib.util.spec_from_file_location("round_time_accuracy", _FILE)
benchmark = importlib.util.module_from_spec(_SPEC)
sys.modules[_SPEC.name] = benchmark
_SPEC.loader.exec_module(benchmark)


def check(case, draws, most=0.02):
    found = benchmark.errors(case, draws)
    noise = 4 * found["(Monte Carlo)"][0]
    for method in ("round_time", "..._and_gradient"):
        mean, quantile = found[method]
        assert mean < most + noise, f"{case.name}: mean of {method} off by {mean:.4f}"
        assert quantile < 0.05, f"{case.name}: 95 % quantile of {method} off by {quantile:.4f}"
    if len(case.clients) <= 12:
        assert found["round_time"] == pytest.approx((0, 0), abs=1e-9)
    return found


@pytest.mark.parametrize("case", [*benchmark.cases(12, seed=1)], ids=lambda case: case.name)
def test_mean_and_quantile_are_right(case):
    check(case, draws=1000)


@pytest.mark.slow
@pytest.mark.parametrize("case", [*benchmark.cases(120, seed=0)], ids=lambda case: case.name)
def test_mean_and_quantile_are_right_against_many_thousand_rounds(case):
    found = check(case, draws=4_000)
    if found["(Monte Carlo)"][0] > 0.002:  # rounds of few participants scatter, and are drawn fast
        check(case, draws=20_000)


_BUSY = [
    case
    for case in benchmark.cases(36, seed=1, allocation="work-conserving")
    if case.clients.snr_hz is None and min(case.clients.max_bandwidth_hz) == float("inf")
]


@pytest.mark.parametrize("case", _BUSY, ids=lambda case: case.name)
def test_a_band_that_never_idles_has_a_law_of_its_own(case):
    """Constant links, whose rounds are drawn fast; the others: the slow test below."""
    check(case, draws=4000)


@pytest.mark.parametrize(
    "case",
    [
        # Number 35 takes as long as all the others of every seventh.
        pytest.param(
            case,
            marks=pytest.mark.long if number % 7 or number == 35 else pytest.mark.slow,
            id=case.name,
        )
        for number, case in enumerate(benchmark.cases(100, seed=0, allocation="work-conserving"))
    ],
)
def test_a_band_that_never_idles_has_a_law_for_all_links(case):
    # Links with limits of their own are an approximation: 2.7 % at worst, with ten clients.
    limited = min(case.clients.max_bandwidth_hz) < float("inf")
    check(case, draws=500, most=0.03 if limited else 0.02)


@pytest.mark.parametrize("case", [*benchmark.cases(30, seed=2)], ids=lambda case: case.name)
def test_the_upper_bound_is_above_the_mean(case):
    given = case.plan.sampling_probability, case.plan.sketch_rank, case.clients, case.system
    mean = benchmark.mean_and_gradient(*given)[0]
    assert benchmark.upper_bound_seconds(*given) > mean * (1 - 5e-3)
