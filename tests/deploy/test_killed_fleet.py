"""A server that is killed in the midst of things, and all of its clients with it, ends as ever."""

import numpy as np
import pytest

pytest.importorskip("flwr")
pytest.importorskip("torch")

from deploy.fleet_kills import differences, killed, left_alone

pytestmark = [pytest.mark.long, pytest.mark.slow, pytest.mark.flower, pytest.mark.torch]
ROUNDS, KILLS = 14, 4


def test_a_served_run_that_was_killed_four_times_is_the_same_to_the_bit(tmp_path):
    whole = left_alone(tmp_path / "whole", ROUNDS)
    seen = []
    run = killed(tmp_path / "killed", ROUNDS, KILLS, np.random.default_rng(0),
                 lambda *what: seen.append(what))  # fmt: skip
    print(seen)
    assert len(seen) == KILLS and "server and clients" in [who for who, *_ in seen]
    assert differences(run, whole) == []
