import numpy as np
import pytest

from fedpace.experiment import plan_figures
from fedpace.experiment.plan_figures import of_schedules, of_sweeps
from fedpace.experiment.scenario import load_scenario, plan_scenario, scenario_network
from fedpace.reporting.plots import predicted_times

CLIENTS = """client_id,data_weight,step_seconds,spectral_efficiency
a,3,0.1,3
b,2,0.3,2
c,1,1.5,1
"""
SCENARIO = """[network]
clients = "clients.csv"
bandwidth_hz = 1e6
overhead_seconds = 1.0
[lora]
rank = 4
[payload]
fixed_bits = 1e5
bits_per_rank = 3e5
"""
WAIT = "training.schedule=synchronous"
OVERLAP = "training.schedule=overlapping"
PRIVATE = ["privacy.clip_norm=0.1", "privacy.noise_multiplier=1.0", "privacy.delta=1e-5"]


@pytest.fixture
def described(tmp_path):
    def described(*overrides, planner=None):
        (tmp_path / "clients.csv").write_text(CLIENTS)
        (tmp_path / "s.toml").write_text(SCENARIO)
        scenario = load_scenario(tmp_path / "s.toml", overrides)
        network = scenario_network(scenario)
        return plan_scenario(scenario, network, planner), scenario, network

    return described


def at_own_value(curves, line):
    """What a line says at the file's own parameters, panel by panel."""
    own = {"spread of ln(step time)": 2, "upload over computation": 2, "bandwidth, MHz": 2,
           "clients": -1, "rank r of the adapter": -2}  # fmt: skip
    return [lines[line][own[label]] for label, (_, lines) in curves.panels.items()]


@pytest.mark.parametrize("overrides, planner", [
    pytest.param([WAIT, "planner.q_min=0.3"], None, marks=pytest.mark.slow),
    ([WAIT, "planner.q_min=0.3", "planner.max_participants=1.2"], None),
    ([WAIT, "planner.cohort=0.4"], "uniform"),
    pytest.param([*PRIVATE, "privacy.max_epsilon=2.0"], None, id="privacy"),
    pytest.param([WAIT, "planner.quantile=0.7"], None, marks=pytest.mark.long),
])  # fmt: skip
def test_figures_of_rounds_that_wait_are_of_the_plan_s_own_problem(described, overrides, planner):
    if overrides[0] in PRIVATE:
        pytest.importorskip("dp_accounting")
    made, scenario, network = described(*overrides, planner=planner)
    free = described(WAIT, planner=planner)[0]
    assert made.verdict in ("converged", "stalled") and made.schedule == "synchronous"
    assert abs(made.objective_seconds / free.objective_seconds - 1) > 0.01  # or it tests nothing
    minimised = made.objective_seconds if made.quantile is None else made.quantile_seconds
    own = pytest.approx(minimised, rel=1e-6)
    sweeps = of_sweeps(made, scenario, network)
    assert at_own_value(sweeps, made.planner) == [own] * 3
    assert at_own_value(of_schedules(made, scenario, network), "synchronous") == [own] * 2


@pytest.mark.parametrize("overrides, planner", [
    pytest.param(["planner.max_bias=0.2"], None, marks=pytest.mark.slow),
    (["training.beat_seconds=8"], None),
    (["training.beat_seconds=8"], "uniform"),
    pytest.param(["planner.p95_limit_seconds=9"], None, marks=pytest.mark.slow),
])  # fmt: skip
def test_figures_of_rounds_that_overlap_are_of_the_plan_s_own_problem(
    described, overrides, planner
):
    made, scenario, network = described(OVERLAP, *overrides, planner=planner)
    assert made.schedule == "overlapping" and not made.verdict.startswith("infeasible")
    free = described(OVERLAP)[0]
    assert abs(made.objective_seconds / free.objective_seconds - 1) > 0.01  # or it tests nothing
    curves = of_schedules(made, scenario, network)
    own = pytest.approx(made.objective_seconds, rel=1e-6)
    line = "overlapping, bias up to 0.2" if made.aggregation_weight is not None else "overlapping"
    assert at_own_value(curves, line) == [own] * 2


@pytest.mark.parametrize("overrides, planner, why", [
    (["planner.max_participants=2"], None, "max_participants"),
    (["training.server_memory=0.5"], None, "server_memory"),
    (["network.allocation=equal-finish"], None, "allocation 'equal-finish'"),
    ([], "uniform", "planner 'uniform'"),
])  # fmt: skip
def test_a_schedule_that_cannot_have_a_limit_has_no_line_and_the_figure_says_so(
    described, overrides, planner, why
):
    curves = of_schedules(*described(WAIT, *overrides, planner=planner))
    assert {tuple(lines) for _, lines in curves.panels.values()} == {("synchronous",)}
    assert curves.notes == ["no line of rounds that overlap:", f"they cannot have {why}"]
    assert why in curves.label()


def test_figures_under_a_quantile_are_of_what_the_plan_minimised(described):
    """A plan for late rounds, drawn by mean rounds, might lie above uniform sampling."""
    asked = WAIT, "planner.quantile=0.7"
    made, scenario, network = described(*asked, planner="uniform")
    sweeps = of_sweeps(made, scenario, network)
    own = pytest.approx(made.quantile_seconds, rel=1e-6)
    assert abs(made.quantile_seconds / made.objective_seconds - 1) > 0.01  # or it tests nothing
    assert at_own_value(sweeps, "uniform") == [own] * 3
    assert "(of rounds that wait, the 0.7 quantile)" in sweeps.notes
    made, scenario, network = described(*asked, planner="paper")
    sweeps = of_sweeps(made, scenario, network)
    assert at_own_value(sweeps, "paper") == [pytest.approx(made.objective_seconds, rel=1e-6)] * 3
    gain = at_own_value(sweeps, "uniform")[0] / at_own_value(sweeps, "paper")[0]
    assert gain == pytest.approx(made.gain["uniform"], rel=0.01)
    assert not any("quantile" in note for note in sweeps.notes)


def test_where_no_plan_keeps_the_limits_there_is_no_point(described):
    pytest.importorskip("matplotlib")
    limits = "planner.q_min=0.5", "planner.p95_limit_seconds=1.01"
    made, scenario, network = described(WAIT, *limits, planner="uniform")
    assert made.verdict.startswith("infeasible")
    curves = of_sweeps(made, scenario, network)
    assert all(np.isnan(time) for time in at_own_value(curves, "uniform"))
    assert curves.notes == ["where a line has no point, no plan keeps the limits"]
    assert predicted_times(curves.panels, curves.label()).axes


def test_a_sample_of_the_clients_has_its_share_of_band_and_of_participants(described, monkeypatch):
    monkeypatch.setattr(plan_figures, "_SWEPT", 2)
    made, scenario, network = described(WAIT, "planner.max_participants=1.5", planner="uniform")
    asked_of = []
    found = plan_figures.plan
    monkeypatch.setattr(
        plan_figures, "plan",
        lambda c, s, **options: (
            asked_of.append((len(c), s.bandwidth_hz, options["max_participants"]))
            or found(c, s, **options)
        ),
    )  # fmt: skip
    curves = of_sweeps(made, scenario, network)
    assert asked_of[0] == (2, pytest.approx(1e6 * 2 / 3), pytest.approx(1.0))
    assert curves.notes[0] == "(a sample of 2 clients)"
