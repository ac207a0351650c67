"""What "auto" takes: the schedule that promises enough, more where it has a bias."""

from dataclasses import replace

import numpy as np
import pytest

import fedpace as fp
from fedpace.planning.overlap.choice import BIASED_GAIN, OVERLAPPING_GAIN, overlaps

SYSTEM = fp.System(
    bandwidth_hz=2e7, lora_rank=8, overhead_seconds=0.1, noise_ratio=2.0,
    allocation="work-conserving",
)  # fmt: skip


def devices(spread):
    quantiles = np.linspace(-1.5, 1.5, 24)
    return fp.Clients.from_columns(
        data_weight=np.ones(24), step_seconds=0.5 * np.exp(spread * quantiles),
        spectral_efficiency=np.full(24, 2.0),
    )  # fmt: skip


def planned(clients, schedule, max_bias=0.0):
    return fp.plan(clients, SYSTEM, schedule=schedule, max_bias=max_bias)


@pytest.mark.parametrize("max_bias, least", [(0.0, OVERLAPPING_GAIN), (0.2, BIASED_GAIN)])
def test_more_is_asked_of_a_promise_that_has_a_bias(max_bias, least):
    clients = devices(1.0)
    rounds, beats = planned(clients, "synchronous"), planned(clients, "overlapping", max_bias)
    assert (beats.aggregation_weight is not None) == (max_bias > 0)
    for factor, taken in ((0.99, True), (1.01, False)):
        seconds = rounds.objective_seconds / least * factor
        assert overlaps(replace(beats, objective_seconds=seconds), rounds, clients) is taken


def test_devices_that_differ_little_wait_where_a_bias_is_allowed():
    alike, unlike = devices(0.5), devices(1.2)
    promised = planned(alike, "overlapping", 0.2).gain["synchronous"]
    assert OVERLAPPING_GAIN < promised < BIASED_GAIN
    waits = planned(alike, "auto", 0.2)
    assert waits.schedule == "synchronous" and "max_bias is not used" in waits.verdict
    assert planned(unlike, "auto", 0.2).schedule == "overlapping"


def test_what_breaks_a_limit_is_not_taken():
    clients = devices(1.0)
    rounds, beats = planned(clients, "synchronous"), planned(clients, "overlapping")
    broken = {"verdict": "infeasible: for a test"}
    assert overlaps(beats, replace(rounds, **broken), clients)
    assert not overlaps(replace(beats, **broken), rounds, clients)
    assert not overlaps(replace(beats, **broken), replace(rounds, **broken), clients)
