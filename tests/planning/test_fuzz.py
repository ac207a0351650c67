"""Whatever finite input: q in [q_min, 1], k in 1..max_rank, or an error of one line."""

import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedpace.core.errors import InputError
from fedpace.core.profile import Clients, System
from fedpace.planning.planner import PLANNERS, plan

PLANNED = int(os.environ.get("FEDPACE_FUZZ_PLANS", "300"))
"""Cases of the long tier."""


def magnitudes(low, high):
    """Numbers of every size between two powers of ten, and 0 where `low` is None."""
    spread = st.floats(-12 if low is None else low, high).map(lambda e: 10.0**e)
    return st.just(0.0) | spread if low is None else spread


@st.composite
def problems(draw):
    """A population, a system, limits, a planner; most of them odd."""
    count = draw(st.integers(1, 5))

    def column(values):
        return draw(st.lists(values, min_size=count, max_size=count))

    link = draw(st.sampled_from(["spectral_efficiency", "snr_hz"]))
    columns = {
        "data_weight": column(magnitudes(-6, 6)),
        "step_seconds": column(magnitudes(None, 6)),
        link: column(magnitudes(-4, 4) if link == "spectral_efficiency" else magnitudes(0, 12)),
        "step_seconds_per_rank": column(magnitudes(None, 3)),
        "max_rank": column(st.integers(1, 40).map(float)),
        "availability": column(st.floats(1e-3, 1)),
        "update_second_moment": column(magnitudes(-6, 6)),
        "max_bandwidth_hz": column(magnitudes(2, 9)),
    }
    if draw(st.booleans()):
        columns["step_joules"] = column(magnitudes(None, 3))
        columns["max_joules_per_round"] = column(magnitudes(-6, 6))
    system = {
        "bandwidth_hz": draw(magnitudes(2, 9)),
        "lora_rank": draw(st.integers(1, 32)),
        "local_steps": draw(st.integers(1, 100)),
        "fixed_bits": draw(magnitudes(None, 9)),
        "bits_per_rank": draw(magnitudes(0, 9)),
        "noise_ratio": draw(magnitudes(None, 6)),
        "overhead_seconds": draw(magnitudes(None, 4)),
        "allocation": draw(st.sampled_from(["work-conserving", "equal-finish"])),
    }
    schedule = draw(st.sampled_from(["synchronous", "synchronous", "overlapping"]))
    limits = {
        "planner": "exact" if schedule == "overlapping" else draw(st.sampled_from([*PLANNERS])),
        "schedule": schedule,
        "q_min": draw(st.floats(1e-4, 1)),
        "quantile": draw(st.none() | st.floats(0.05, 0.95)),
        "p95_limit_seconds": draw(st.none() | magnitudes(-3, 6)),
        "predict": False,
    }
    return columns, system, limits


def holds(problem):
    columns, system, limits = problem
    try:
        clients, shared = Clients.from_columns(**columns), System(**system)
        made = plan(clients, shared, **limits)
    except InputError as error:
        assert str(error) and "\n" not in str(error)
        return
    k = made.sketch_rank
    assert (k >= 1).all()
    q = made.sampling_probability
    if made.draws is not None:  # what bounds the weight of an update is K p, not the chance
        q = np.minimum(made.draws * q, 1.0)
    assert np.isfinite(q).all() and "\n" not in made.verdict
    if made.verdict.startswith("infeasible"):
        return  # what it names is the nearest that there is
    assert (k <= np.minimum(np.floor(clients.max_rank), shared.lora_rank)).all()
    assert (q >= limits["q_min"] * (1 - 1e-9)).all() and (q <= 1 + 1e-12).all()


UNHURRIED = settings(
    deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), print_blob=True
)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@given(problem=problems())
@settings(UNHURRIED, max_examples=12)
def test_a_plan_keeps_its_bounds_or_says_in_a_line_why_there_is_none(problem):
    holds(problem)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@given(problem=problems())
@settings(UNHURRIED, max_examples=PLANNED)
def test_many_plans_keep_their_bounds_or_say_in_a_line_why_there_is_none(problem):
    holds(problem)
