"""Whether an experiment fits: what is told of memory and time, and what is not tried."""

import numpy as np
import pytest

pytest.importorskip("torch")

import tiny
from fedpace import load_experiment
from fedpace.core.errors import InputError
from fedpace.doctor import fit_lines
from fedpace.experiment import fit
from fedpace.experiment.build import build_work, set_up
from fedpace.experiment.methods import make_plan

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    tiny.write_experiment(folder)
    return load_experiment(folder / "my.toml")


def test_a_small_experiment_fits_and_a_round_is_that_of_the_plan(experiment):
    found = fit.try_fit(experiment)
    work = build_work(experiment)
    plan = make_plan(experiment, set_up(experiment, work, "adaptive").network, "adaptive")
    assert found.participants == pytest.approx(plan.sampling_probability.sum())
    assert found.fits and found.together
    assert found.seconds_per_round > 0
    told = " ".join(fit_lines(found, experiment))
    assert "it fits" in told and "trained together" in told


def test_what_would_not_fit_is_not_tried(experiment, monkeypatch):
    monkeypatch.setattr(fit, "_free_bytes", lambda: 1e6)
    monkeypatch.setattr(fit.Trainer, "__call__", lambda self, tasks: pytest.fail("it was tried"))
    found = fit.try_fit(experiment)
    assert not found.fits and found.seconds_per_round is None
    told = " ".join(fit_lines(found, experiment))
    assert "it does not fit" in told
    remedies = 'take [model] dtype = "bfloat16" and [training] gradient_checkpointing = true'
    assert remedies in told


def test_the_guess_of_what_is_not_tried_is_less_where_layers_are_computed_again(
    experiment, monkeypatch
):
    monkeypatch.setattr(fit, "_free_bytes", lambda: 1e6)
    monkeypatch.setattr(fit, "_peak_bytes", lambda: 0.0)
    training = experiment.training.model_copy(update={"gradient_checkpointing": True})
    recomputing = experiment.model_copy(update={"training": training})
    less, plain = fit.try_fit(recomputing), fit.try_fit(experiment)
    assert less.peak_bytes < plain.peak_bytes
    assert "gradient_checkpointing" not in " ".join(fit_lines(less, recomputing))


def test_the_longest_examples_of_all_are_what_is_tried_for_the_peak(experiment, monkeypatch):
    seen = []
    train_part = fit.Trainer.train_part

    def watch(self, tasks):
        seen.append(sorted(n for t in tasks for n in self.clients[t.client].lengths.tolist()))
        return train_part(self, tasks)

    monkeypatch.setattr(fit.Trainer, "train_part", watch)
    fit.try_fit(experiment)
    lengths = sorted(n for each in build_work(experiment).clients for n in each.lengths.tolist())
    assert seen[-1] == lengths[-len(seen[-1]) :]


@pytest.mark.parametrize("memory", [0.0, 0.5])
def test_each_participant_beyond_those_tried_adds_an_update(experiment, monkeypatch, memory):
    monkeypatch.setattr(fit, "_peak_bytes", lambda: 0.0)
    monkeypatch.setattr(fit, "MOST_TOGETHER", 1)
    training = experiment.training.model_copy(update={"server_memory": memory})
    found = fit.try_fit(experiment.model_copy(update={"training": training}))
    work = build_work(experiment)
    plan = make_plan(experiment, set_up(experiment, work, "adaptive").network, "adaptive")
    joins = plan.sampling_probability
    most = joins.sum() + 2 * np.sqrt(np.sum(joins * (1 - joins)))
    # Server memory keeps one for each client besides.
    held = most - 1 + (len(joins) if memory else 0)
    adapter = sum(4 * np.prod(t.shape) for t in work.layout.tensors)
    assert most > 1.5
    assert found.peak_bytes == pytest.approx(held * adapter)


@pytest.mark.parametrize(("method", "arrivals"), [("fedbuff", 3), ("fedasync", 1)])
def test_a_step_of_an_asynchronous_server_trains_those_in_its_buffer(
    experiment, monkeypatch, method, arrivals
):
    monkeypatch.setattr(fit, "_peak_bytes", lambda: 0.0)
    monkeypatch.setattr(fit, "MOST_TOGETHER", 1)
    training = experiment.training.model_copy(update={"buffer_size": 3})
    buffered = experiment.model_copy(update={"methods": [method], "training": training})
    found = fit.try_fit(buffered)
    assert found.participants == arrivals
    work = build_work(buffered)
    busy = make_plan(buffered, set_up(buffered, work, method).network, method)
    adapter = sum(4 * np.prod(t.shape) for t in work.layout.tensors)
    held = arrivals + busy.sampling_probability.sum() - 1
    assert found.peak_bytes == pytest.approx(held * adapter)


def test_what_a_run_would_refuse_is_refused_before_anything_is_loaded(experiment, monkeypatch):
    monkeypatch.setattr(fit, "build_work", lambda experiment: pytest.fail("it was loaded"))
    training = experiment.training.model_copy(update={"target": "accuracy=0.8"})
    with pytest.raises(InputError, match="target is 'accuracy=0.8'"):
        fit.try_fit(experiment.model_copy(update={"training": training}))
