"""`fedpace plan my.toml` says what a run of my.toml will do."""

import json
import re

import numpy as np
import pytest

pytest.importorskip("torch")

import tiny
from fedpace import load_experiment
from fedpace.core.errors import InputError
from fedpace.experiment.prepare import prepare
from fedpace.experiment.scenario import load_scenario, plan_scenario, scenario_network

pytestmark = pytest.mark.torch


FLEET = """client_id,data_weight,step_seconds,spectral_efficiency
a,1,0.1,2
b,9,0.2,1
c,1,0.1,3
d,1,0.4,2
e,1,0.3,2
f,1,0.1,5
"""


@pytest.mark.parametrize(
    "told",
    [
        ["training.schedule=auto"],
        ["training.schedule=overlapping"],
        pytest.param(["lora.upload_dtype=int4"], marks=pytest.mark.slow),
        ["network.clients=fleet.csv"],  # of its clients, the data is what [data] deals them
    ],
)
def test_a_plan_is_that_of_the_run(tmp_path, told):
    tiny.write_experiment(tmp_path)
    (tmp_path / "fleet.csv").write_text(FLEET)
    told = [word.replace("fleet.csv", str(tmp_path / "fleet.csv")) for word in told]
    told.append("planner.replan_every=0")
    scenario = load_scenario(tmp_path / "my.toml", told)
    network = scenario_network(scenario)
    run = prepare(load_experiment(tmp_path / "my.toml", [*told, 'methods=["adaptive"]']))
    np.testing.assert_array_equal(
        network.clients.data_weight, run.site.work.network.clients.data_weight
    )
    made, followed = plan_scenario(scenario, network), run.plans["adaptive"]
    assert json.dumps(made.to_json()) == json.dumps(followed.to_json())


@pytest.mark.slow
def test_a_limit_on_the_longest_rounds_is_kept_or_told(tmp_path):
    tiny.write_experiment(tmp_path)
    told = ["training.schedule=synchronous", "planner.replan_every=0", 'methods=["adaptive"]']

    def planned(*more):
        return prepare(load_experiment(tmp_path / "my.toml", [*told, *more])).plans["adaptive"]

    free = planned().round_seconds.p95
    held = planned(f"planner.p95_limit_seconds={0.9 * free}")
    assert not held.verdict.startswith("infeasible")
    assert held.round_seconds.p95 <= 0.9 * free * 1.01
    assert planned("planner.p95_limit_seconds=1e-9").verdict.startswith("infeasible: the p95")


def test_a_trace_shorter_than_the_planned_run_is_told_before_it(tmp_path, caplog):
    tiny.write_experiment(tmp_path)
    (tmp_path / "trace.csv").write_text("time,rate\n0,1\n1e-6,3\n2e-6,2\n")
    told = [
        f"network.gain_trace='{tmp_path}/trace.csv'", "network.fading=false",
        "network.overhead_seconds=0.0", "planner.replan_every=0", "training.schedule=synchronous",
        'methods=["adaptive"]',
    ]  # fmt: skip
    experiment = load_experiment(tmp_path / "my.toml", told)
    endless = experiment.training.model_copy(update={"target": None})
    message = r"gain_trace = '.*trace.csv' lasts 3e-06 s, and \d+ rounds of 'adaptive' take "
    with pytest.raises(InputError, match=message):
        prepare(experiment.model_copy(update={"training": endless}))
    aimed = experiment.training.model_copy(update={"target": "accuracy>=0.6"})
    prepare(experiment.model_copy(update={"training": aimed}))
    assert re.search(message, caplog.text)
