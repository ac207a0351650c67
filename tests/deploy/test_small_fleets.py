"""One of four clients is malicious: real training, the server's checks, what comes of the model."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("flwr")
pytest.importorskip("torch")

from deploy.in_memory import run_in_memory

pytestmark = [pytest.mark.long, pytest.mark.slow, pytest.mark.torch, pytest.mark.flower]
ROUNDS = 12
FAST = ("training.server_learning_rate=0.1",)


def times(factor):
    return lambda u: replace(u, delta={n: np.float32(factor) * v for n, v in u.delta.items()})


def accuracy(record):
    return record.records[-1].evaluation["accuracy"]


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    return run_in_memory(tmp_path_factory.mktemp("honest"), *FAST, clients=4, rounds=ROUNDS)[2]


@pytest.mark.parametrize("change", [times(-9), times(9), times(-30)], ids=["-9", "9", "-30"])
def test_one_of_four_that_scales_its_update_is_excluded_and_the_model_learns(
    tmp_path, honest, change
):
    record = run_in_memory(tmp_path, *FAST, clients=4, rounds=ROUNDS, spoil={3: change})[2]
    out = [r.round for r in record.records if 3 in r.excluded]
    assert len(out) == 1 and out[0] < ROUNDS / 2
    assert {c for r in record.records for c, _ in r.refusals} == {3}
    print(f"excluded in round {out[0] + 1}, accuracy {accuracy(record):.3f} "
          f"against {accuracy(honest):.3f}")  # fmt: skip
    assert accuracy(record) > accuracy(honest) - 0.1


def test_losses_that_are_none_are_refused_and_never_recorded(tmp_path):
    spoil = {3: lambda u: replace(u, train_loss=1e307), 2: lambda u: replace(u, train_loss=-1.0)}
    record = run_in_memory(tmp_path, clients=4, rounds=4, spoil=spoil)[2]
    assert [sorted(c for c, _ in r.refusals) for r in record.records] == [[2, 3]] * 3 + [[]]
    assert max(p.train_loss for r in record.records for p in r.participants) < 10
