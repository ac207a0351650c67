"""[privacy] over a network: clients cut, and the noise is not in the seed that they know."""

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("flwr")
pytest.importorskip("dp_accounting")

from deploy.in_memory import run_in_memory
from fedpace import InputError
from fedpace.run_folder.checkpoint import read_checkpoint

pytestmark = [pytest.mark.torch, pytest.mark.flower]


def served(folder, noise, *more):
    folder.mkdir()
    terms = ("privacy.clip_norm=0.01", f"privacy.noise_multiplier={noise}", "privacy.delta=1e-3")
    return run_in_memory(folder, *terms, *more)[2]


def test_clients_cut_their_updates_and_the_server_refuses_none(tmp_path):
    record = served(tmp_path / "cut", 0.0)
    norms = [(p.lora_squared_norm + p.head_squared_norm) ** 0.5
             for r in record.records for p in r.participants]  # fmt: skip
    assert len(norms) == 4 and [r.refusals for r in record.records] == [(), ()]
    np.testing.assert_allclose(norms, 0.01, rtol=1e-4)
    assert max(norms) <= 0.01


def test_two_runs_of_one_seed_have_other_noise(tmp_path):
    runs = [served(tmp_path / name, 1.0) for name in ("one", "two")]
    first, second = (read_checkpoint(r.folder, "full").adapter for r in runs)
    assert all(not np.array_equal(first[name], second[name]) for name in first)
    spent = [r.summary["methods"]["full"]["epsilon_max"] for r in runs]
    assert spent[0] == spent[1] > 0


def test_rounds_that_no_checkpoint_counts_are_refused(tmp_path):
    with pytest.raises(InputError, match="checkpoint_every = 2 with"):
        served(tmp_path / "no", 1.0, "output.checkpoint_every=2")
