"""From [network] to a population."""

from pathlib import Path

import numpy as np
import pytest

from fedpace import InputError, load_experiment
from fedpace.experiment.network import build_network
from fedpace.experiment.scenario import (
    load_scenario,
    plan_scenario,
    scenario_network,
)
from fedpace.wireless.population import upload_compute_ratio


def drawn(*overrides, **training):
    experiment = load_experiment(None, overrides)
    changed = experiment.training.model_copy(update=training)
    experiment = experiment.model_copy(update={"training": changed})
    weight = np.arange(1.0, 101.0)
    return build_network(experiment, weight, fixed_bits=1e5, bits_per_rank=1e5)


def test_a_key_of_the_network_stands_in_place_of_the_scenarios():
    plain, mild = drawn(), drawn("network.step_spread=0.1", "network.upload_compute_ratio=3.0")
    assert upload_compute_ratio(plain.clients, plain.system, 4) == pytest.approx(1.0)
    assert upload_compute_ratio(mild.clients, mild.system, 4) == pytest.approx(3.0)
    wide = drawn("network.ratio_cohort=20.0")
    assert upload_compute_ratio(wide.clients, wide.system, 20) == pytest.approx(1.0)
    spread = [np.std(np.log(n.clients.step_seconds)) for n in (plain, mild)]
    assert spread[0] > 0.8 and spread[1] < 0.13


def test_clients_with_uplinks_of_their_own_have_no_shadow():
    made = drawn("network.scenario=own-uplinks").clients
    assert np.all(np.isfinite(made.max_bandwidth_hz))
    assert np.all(np.isinf(drawn().clients.max_bandwidth_hz))
    with pytest.raises(InputError, match=r"shadowing_db: clients of the scenario 'own-uplinks'"):
        drawn("network.scenario=own-uplinks", "network.shadowing_db=4.0")


def test_the_example_of_pcs_and_phones_is_planned_with_its_messages():
    """Alone at 8 ranks of 34.9 Mbit: the least uplink of a client is its longest upload."""
    scenario = load_scenario(Path(__file__).parents[2] / "examples" / "pc-to-phone.toml")
    network = scenario_network(scenario)
    made = plan_scenario(scenario, network, "uniform")
    longest = 8 * 1_089_536 * 32 / network.clients.max_bandwidth_hz.min()
    slowest = 5 * network.clients.step_seconds.max() / 0.9
    assert slowest == pytest.approx(500)
    assert max(longest, slowest) < made.round_seconds.p95 < longest + slowest


def test_sizes_can_go_with_slowness():
    slow = drawn("network.size_slowness_correlation=1.0").clients
    assert np.all(np.diff(slow.step_seconds) >= 0)


def test_some_memories_can_be_small():
    small = drawn("network.small_memory_share=0.5").clients.max_rank == 4
    assert 0.3 < small.mean() < 0.7
    assert np.all(drawn().clients.max_rank > 16)


def test_links_that_change_are_drawn_or_read(tmp_path):
    made = drawn("network.gain_db=2.0", "network.gain_seconds=0.5", "network.best_first=true")
    assert made.gains.deviation_db == 2 and made.gains.correlation_seconds == 0.5
    assert made.best_first and drawn().gains is None
    (tmp_path / "trace.csv").write_text("time,rate\n0,1\n50,3\n")
    traced = drawn(f"network.gain_trace='{tmp_path}/trace.csv'")
    assert traced.gains.trace.length_seconds == 100 and len(traced.gains.begins) == 100


@pytest.mark.parametrize("overrides, message", [
    (["network.gain_db=2.0", "network.gain_trace='TRACE'"], "gain_trace and gain_db exclude"),
    (["network.gain_db=2.0", "network.fading=true"], "gain_db and fading exclude"),
    (["network.gain_db=2.0", "network.allocation='equal-share'"], "'equal-share' fixes shares"),
    (["network.best_first=true"], "best_first = true: links that do not change"),
    (["network.gain_trace='nowhere.csv'"], "[network] gain_trace: "),
])  # fmt: skip
def test_links_that_cannot_change_so_are_told_in_one_line(tmp_path, overrides, message):
    (tmp_path / "trace.csv").write_text("time,rate\n0,1\n50,3\n")
    with pytest.raises(InputError) as error:
        drawn(*(text.replace("TRACE", f"{tmp_path}/trace.csv") for text in overrides))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_trace_lasts_for_all_rounds_unless_a_target_may_end_the_run_sooner(tmp_path):
    (tmp_path / "trace.csv").write_text("time,rate\n0,1\n50,3\n")
    trace = f"network.gain_trace='{tmp_path}/trace.csv'", "network.overhead_seconds=0.2"
    with pytest.raises(InputError, match="lasts 100 s, and 600 rounds at least 120 s"):
        drawn(*trace, rounds=600, target=None)
    for last in ({"rounds": 500, "target": None}, {"rounds": 600, "target": "loss<=1"}):
        assert drawn(*trace, **last).gains is not None


def test_a_population_is_drawn_or_read_not_both():
    with pytest.raises(InputError, match="step_spread and clients"):
        drawn("network.step_spread=0.1", "network.clients='clients.csv'")
