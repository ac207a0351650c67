"""The share of evaluation in a run's computing, counted by hand."""

import numpy as np
import pytest

from fedpace import load_experiment
from fedpace.core.plan import Decision
from fedpace.experiment.config import TrainingSection
from fedpace.experiment.evaluation_cost import Reading, evaluation_share, told
from fedpace.experiment.prepare import prepare


def test_the_share_is_what_one_counts_by_hand():
    # Client 0 always joins and has two examples of 10 tokens, client 1 joins every fourth round
    # with full batches of 4 examples of 5 tokens: 3 steps read 3 x 20 + 0.25 x 3 x 20 = 75 tokens,
    # twice: once forward, and backward through a base that needs no gradient of its weights.
    read = Reading(np.array([2.0, 90.0]), np.array([10.0, 5.0]), 30, 300)
    decision = Decision(np.array([1.0, 0.25]), np.array([1, 1]))
    training = TrainingSection(local_steps=3, batch_size=4, eval_every=2)
    assert evaluation_share(read, decision, training) == pytest.approx(300 / (300 + 2 * 2 * 75))


def test_what_would_do_brings_it_to_a_fifth():
    read = Reading(np.array([8.0]), np.array([1000.0]), 5000, 50_000)
    decision, training = Decision(np.ones(1), np.ones(1, int)), TrainingSection(eval_every=1)
    share = evaluation_share(read, decision, training)
    line = told(share, read.held_out)
    less = int(line.split("max_eval = ")[1].split()[0])
    smaller = Reading(np.array([8.0]), np.array([1000.0]), less, 10 * less)
    assert evaluation_share(smaller, decision, training) == pytest.approx(0.2, abs=0.01)
    assert "max_eval" not in told(0.19, 100)


@pytest.mark.slow
@pytest.mark.torch
def test_the_default_experiment_evaluates_for_less_than_a_fifth(caplog):
    with caplog.at_level("INFO", "fedpace.experiment.prepare"):
        prepare(load_experiment(None))
    (line,) = [m for m in caplog.messages if "of the computing" in m]
    assert "max_eval" not in line
