"""Published methods over Flower's messages: a real model, and the losses of the virtual clock."""

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("flwr")

from deploy.in_memory import run_in_memory
from fedpace import run
from fedpace.experiment.config import load_experiment

pytestmark = [pytest.mark.torch, pytest.mark.flower]
EVERYONE = ("planner.cohort=1", "training.learning_rate=2.0", "training.eval_every=1")


def losses(record):
    return [[p.train_loss for p in sorted(r.participants, key=lambda p: p.client)]
            for r in record.records]  # fmt: skip


def evaluations(record):
    return [r.evaluation["loss"] for r in record.records]


@pytest.mark.parametrize(
    "method, upload", [("flora", "float32"), ("ffa-lora", "int4"), ("flasc", "int8")]
)
def test_a_served_method_trains_on_what_the_virtual_clocks_clients_train_on(
    tmp_path, method, upload
):
    """FLoRA's clients once trained on a base into which nothing was merged."""
    overrides = (*EVERYONE, f"methods=['{method}']", f"lora.upload_dtype={upload}")
    _, _, served = run_in_memory(tmp_path, *overrides, clients=2, rounds=4)
    own = load_experiment(served.folder / "experiment.toml")
    local = run(own, out=tmp_path / "local")
    assert [len(r.participants) for r in served.records] == [2] * 4
    np.testing.assert_allclose(losses(served), losses(local), rtol=2e-3)
    np.testing.assert_allclose(evaluations(served), evaluations(local), rtol=2e-3)
    # What was merged shows: the first round's losses are no longer those of the last.
    assert not np.allclose(losses(local)[0], losses(local)[-1], rtol=2e-2)
