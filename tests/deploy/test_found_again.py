"""What a server's experiment names is held against its checkpoint when it goes on."""

import pytest

pytest.importorskip("torch")
pytest.importorskip("flwr")

from deploy.in_memory import run_in_memory
from experiment.test_found_again import other_tokens, trace
from fedpace.core.errors import InputError

pytestmark = [pytest.mark.torch, pytest.mark.flower]


def test_a_server_that_goes_on_finds_its_trace_and_its_tokens_or_says_which_not(
    tmp_path, monkeypatch
):
    trace(tmp_path / "trace.csv", 3)
    told = [f"network.gain_trace={tmp_path}/trace.csv"]

    def again():
        return run_in_memory(tmp_path, *told, clock="virtual", resumed=True)

    run_in_memory(tmp_path, *told, clock="virtual")
    again()
    trace(tmp_path / "trace.csv", 5)
    with pytest.raises(InputError, match="made with other rates of the gain_trace than are found"):
        again()
    trace(tmp_path / "trace.csv", 3)

    def written(folder, text):
        other_tokens(folder)
        return folder / "my.toml"

    monkeypatch.setattr("deploy.in_memory.write_experiment", written)
    with pytest.raises(InputError, match="made with other tokens of the held-out examples than"):
        again()
