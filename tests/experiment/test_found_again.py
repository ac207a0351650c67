"""What an experiment names beside its data is held against a run's checkpoint when it goes on."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")

from safetensors.numpy import load_file, save_file

import tiny
from fedpace.core.errors import InputError
from fedpace.experiment.config import load_experiment
from fedpace.experiment.run import resume, run
from fedpace.run_folder.checkpoint import read_checkpoint, write_checkpoint

pytestmark = pytest.mark.torch

LATER = (
    "tokens of the held-out examples", "values of the initial adapter",
    "configuration of the model", "rates of the gain_trace",
)  # fmt: skip
"""What checkpoints of earlier versions do not have."""


def trace(path, fast):
    path.write_text(f"time,rate\n0,1\n1000,{fast}\n2000,2\n")


def other_start(folder):
    path = folder / "start" / "adapter_model.safetensors"
    found = load_file(path)
    save_file({name: value + np.float32(0.5) for name, value in found.items()}, path)


def other_activation(folder):
    path = folder / "model" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "hidden_act": "relu"}))


def other_tokens(folder):
    """Two words change places: with the training examples that is told, too."""
    path = folder / "model" / "tokenizer.json"
    told = json.loads(path.read_text())
    words = told["model"]["vocab"]
    words["w0"], words["w1"] = words["w1"], words["w0"]
    path.write_text(json.dumps(told))


CHANGES = [
    (lambda folder: trace(folder / "trace.csv", 5), "rates of the gain_trace"),
    (other_start, "values of the initial adapter"),
    (other_activation, "configuration of the model"),
    (other_tokens, "tokens of the examples and tokens of the held-out examples"),
]


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A folder with all that an experiment can name, and a run of it."""
    place = tmp_path_factory.mktemp("place")
    tiny.write_experiment(place)
    trace(place / "trace.csv", 3)
    told = ['methods=["uniform"]', "training.rounds=2", "planner.replan_every=0"]
    first = run(load_experiment(place / "my.toml", told), out=place / "first")
    shutil.copytree(first.folder / "adapter", place / "start")
    told += [f"network.gain_trace={place}/trace.csv", f"lora.start_from={place}/start"]
    run(load_experiment(place / "my.toml", told), out=place / "run")
    return place


def moved(begun, tmp_path):
    """Copy it, so that what is changed stays there."""
    shutil.copytree(begun, tmp_path / "place")
    path = tmp_path / "place" / "run" / "experiment.toml"
    path.write_text(path.read_text().replace(str(begun), str(tmp_path / "place")))
    return tmp_path / "place"


@pytest.mark.parametrize(("change", "what"), CHANGES)
def test_a_file_that_is_another_now_is_refused_by_what_it_is(begun, tmp_path, change, what):
    place = moved(begun, tmp_path)
    resume(place / "run")
    change(place)
    with pytest.raises(InputError, match=f"made with other {what} than are found now"):
        resume(place / "run")


def test_a_folder_of_an_earlier_version_resumes_by_what_it_has(begun, tmp_path):
    place = moved(begun, tmp_path)
    found = read_checkpoint(place / "run", "uniform")
    known = found.state["fingerprint"]
    assert set(LATER) < set(known)
    earlier = {part: value for part, value in known.items() if part not in LATER}
    state = {**found.state, "fingerprint": earlier}
    write_checkpoint(place / "run", "uniform", replace(found, state=state))
    trace(place / "trace.csv", 5)
    resume(place / "run")
