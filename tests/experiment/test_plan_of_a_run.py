"""`fedpace plan my.toml` says what a run of my.toml will do."""

import json

import numpy as np
import pytest

pytest.importorskip("torch")

import tiny
from fedpace import load_experiment
from fedpace.experiment.prepare import prepare
from fedpace.experiment.scenario import load_scenario, plan_scenario, scenario_network

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("schedule", ["synchronous", "overlapping"])
def test_a_plan_is_that_of_the_run(tmp_path, schedule):
    tiny.write_experiment(tmp_path)
    told = [f"training.schedule={schedule}", "planner.replan_every=0"]
    scenario = load_scenario(tmp_path / "my.toml", told)
    network = scenario_network(scenario)
    run = prepare(load_experiment(tmp_path / "my.toml", [*told, 'methods=["adaptive"]']))
    np.testing.assert_array_equal(
        network.clients.data_weight, run.site.work.network.clients.data_weight
    )
    made, followed = plan_scenario(scenario, network), run.plans["adaptive"]
    assert json.dumps(made.to_json()) == json.dumps(followed.to_json())
