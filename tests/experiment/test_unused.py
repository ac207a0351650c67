"""A key that somebody says and nothing uses is refused with its remedy, or named in a verdict."""

import tomllib
from pathlib import Path

import numpy as np
import pytest

from fedpace import InputError, load_experiment, run
from fedpace.experiment.build import check
from fedpace.experiment.config import Experiment
from fedpace.experiment.methods import make_plan
from fedpace.experiment.network import build_network
from fedpace.experiment.parsing import parse
from fedpace.experiment.scenario import load_scenario, scenario_network
from fedpace.experiment.unused import check_used

ROOT = Path(__file__).parents[2]
DEVICES = ROOT / "examples" / "devices.toml"
UNUSED = [
    ("network.scenario=cell-balanced", r"scenario = 'cell-balanced' and clients .* remove one"),
    ("network.gain_seconds=1.0", r"gain_seconds = 1: .* set gain_db, or leave it out"),
    ("lora.upload_density=0.25", r"upload_density = 0.25: no method here .adaptive.* 'flasc'"),
]
"""What is said, though it is the default, and what is then told."""


@pytest.mark.parametrize("said, told", UNUSED)
def test_a_key_that_nothing_uses_is_refused_by_a_plan_and_by_a_run(tmp_path, said, told):
    load_scenario(DEVICES)
    with pytest.raises(InputError, match=told):
        load_scenario(DEVICES, [said])
    file = f"network.clients={ROOT / 'examples' / 'devices.csv'}"
    with pytest.raises(InputError, match=told):
        run(load_experiment(None, [file, "data.clients=6", said]), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_where_it_is_used_it_is_taken():
    check_used(load_experiment(None, ["network.scenario=own-uplinks"]))
    check_used(load_experiment(None, ["network.gain_db=2.0", "network.gain_seconds=3.0"]))
    words = "methods=['adaptive', 'flasc']", "lora.upload_density=0.1"
    check_used(load_experiment(None, words))
    load_scenario(DEVICES, words)


def test_what_a_run_wrote_may_be_run_again():
    """Its file has every key, also those that nobody chose."""
    words = ["network.clients=devices.csv", "data.clients=6", "network.scenario=cell-mild"]
    check_used(parse(Experiment, tomllib.loads(load_experiment(None, words).to_toml()), "file"))


def test_a_run_that_goes_on_is_not_asked():
    """What `resume` and a suite check before they begin knows nothing of it."""
    check(load_experiment(None, [said for said, _ in UNUSED]))


def test_another_number_of_clients_than_the_file_has_is_refused_by_a_plan_too():
    scenario_network(load_scenario(DEVICES, ["data.clients=6"]))
    with pytest.raises(InputError, match=r"has 6 clients, but \[data\] clients is 9; set it to 6"):
        scenario_network(load_scenario(DEVICES, ["data.clients=9"]))


@pytest.mark.parametrize("method", ["fedasync", "fedbuff", "ca2fl", "fadas"])
def test_a_server_that_waits_for_nobody_says_that_it_has_no_limit(method):
    limit = "planner.p95_limit_seconds=30.0"
    both = load_experiment(None, [limit, f"methods=['adaptive', '{method}']"])
    check_used(both)
    network = build_network(both, np.ones(40), fixed_bits=1e5, bits_per_rank=1e5)
    made = make_plan(both, network, method)
    told = "; the server waits for nobody, so p95_limit_seconds is not used"
    assert made.verdict == "converged" + told
    free = both.model_copy(update={"planner": load_experiment().planner})
    assert make_plan(free, network, method).verdict == "converged"
    alone = f"methods=['{method}']"
    with pytest.raises(InputError, match=rf"p95_limit_seconds = 30: no method here \({method}\)"):
        check_used(load_experiment(None, [limit, alone]))
    load_scenario(DEVICES, [limit, alone])  # a plan is of "adaptive", which keeps it


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.toml")), ids=lambda p: p.stem)
def test_the_examples_say_nothing_that_is_not_used(path):
    load_scenario(path)
