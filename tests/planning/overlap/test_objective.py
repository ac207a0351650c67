"""The objective of overlapping rounds, and its limit."""

from dataclasses import replace

import numpy as np
import pytest

import fedpace as fp
from fedpace.core.sketch import RESIDUAL, SCALED
from fedpace.planning.overlap.objective import (
    BATCH_NOISE,
    limit_seconds,
    regularity,
    schedule_cost,
)
from fedpace.planning.overlap.planner import overlapping
from fedpace.planning.overlap.step import THETA
from fedpace.planning.solver.objective import Problem, relative_rounds
from fedpace.wireless.channel import rate_bps
from planning.some_problems import some_clients, some_system


def test_beats_in_which_nobody_is_late_cost_what_synchronous_rounds_do():
    clients, system = some_clients(12, availability=np.linspace(0.4, 1, 12)), some_system(12)
    q, k = np.linspace(0.1, 1, 12), np.arange(1.0, 13.0).clip(1, 8)
    for sketch in (SCALED, RESIDUAL):
        shared = replace(system, sketch=sketch)
        cost, law = schedule_cost(q, k, 1e4, clients, shared)
        assert np.all(law.age_beats == 1) and cost.delay_beats == 0
        assert cost.relative_beats == pytest.approx(relative_rounds(q, k, clients, shared))
        assert cost.objective_seconds == pytest.approx(1e4 * cost.relative_beats)


def test_three_clients_worked_out():
    # Ages 1, 2 and 4 beats of 1 s; started at once, at every third and at every second idle beat.
    clients = fp.Clients.from_columns(
        data_weight=[1, 1, 2], step_seconds=[0.5, 1.5, 3.5], spectral_efficiency=[1, 1, 1]
    )
    system = fp.System(bandwidth_hz=1e12, lora_rank=4, local_steps=1, noise_ratio=0.6)
    q = np.array([1.0, 1 / 3, 1 / 2])
    cost, law = schedule_cost(q, np.full(3, 4.0), 1.0, clients, system)
    assert 1 / law.chance == pytest.approx([1, 4, 5])
    assert cost.delay_beats == pytest.approx(0.25 * 1 + 0.5 * 3)
    # Of the second client 1.5 and of the third 3 x 1.2 is regular; a^2 is 1, 1, 4 of 6.
    own = 1 - BATCH_NOISE
    noise = 0.6 * (1 * 1 + 1 * (4 - 1.5 * own) + 4 * (5 - 3.6 * own)) / 6
    assert cost.noise == pytest.approx(noise)
    assert cost.objective_seconds == pytest.approx((1 + THETA * 1.75 + noise) / 1.6)


@pytest.mark.parametrize(("q", "age"), [(1.0, 3), (0.5, 3), (0.1, 2), (0.3, 1)])
def test_starts_of_a_client_scatter_as_regularity_says(q, age):
    # Without noise of batches: the scatter of the summed weights over many beats, by drawing them.
    cycle = age - 1 + 1 / q
    rng = np.random.default_rng(0)
    beats = 20_000
    ends = np.cumsum(age - 1 + rng.geometric(q, size=(400, int(1.2 * beats / cycle))), axis=1)
    weight = cycle * np.count_nonzero(ends <= beats, axis=1)
    expected = cycle - 1 - regularity(np.array([age]), np.array([1 / cycle]))[0] / (1 - BATCH_NOISE)
    assert weight.mean() / beats == pytest.approx(1, abs=0.01)
    assert weight.var() / beats == pytest.approx(expected, rel=0.25, abs=0.01)


def test_no_schedule_beats_the_limit_and_some_come_near():
    clients, system = some_clients(12, 1), some_system(12, noise_ratio=1.0)
    limit = limit_seconds(clients, system)
    rng = np.random.default_rng(0)
    for beat in (3.0, 20.0):
        q, k = rng.uniform(0.01, 0.5, 12), rng.integers(1, 9, 12).astype(np.float64)
        assert schedule_cost(q, k, beat, clients, system)[0].objective_seconds > limit
    assert fp.plan(clients, system).objective_seconds > limit
    # Much noise in little data: a busy client's regularity is worth more than its delay costs.
    loud = replace(clients, update_second_moment=np.where(np.arange(12) == 3, 400.0, 1.0))
    free = overlapping(Problem(loud, replace(system, noise_ratio=5.0)), polish=False)
    assert free.cost.objective_seconds > limit_seconds(loud, replace(system, noise_ratio=5.0))
    # All the band, computing next to nothing: what is left is the noise.
    quick = replace(clients, step_seconds=clients.step_seconds * 1e-6,
                    step_seconds_per_rank=clients.step_seconds_per_rank * 0)  # fmt: skip
    noisy = replace(system, overhead_seconds=0.0)
    made = overlapping(Problem(quick, noisy), polish=False)
    assert 1 < made.cost.objective_seconds / limit_seconds(quick, noisy) < 1.3


@pytest.mark.parametrize(
    "snr",
    [
        np.array([1e4, 1e7]),
        pytest.param(np.full(6, 3e5), marks=pytest.mark.slow),
        pytest.param(np.array([1e4, 1e5, 1e6, 3e6, 1e7, 1e7]), marks=pytest.mark.slow),
    ],
    ids=["two", "six alike", "six"],
)
def test_no_division_of_the_band_among_shannon_links_beats_the_limit(snr):
    # Computing next to nothing; alone in the whole band a link spends its power on too much of it.
    columns = {"data_weight": np.ones(len(snr)), "step_seconds": np.full(len(snr), 1e-6)}
    system = fp.System(
        bandwidth_hz=1e7, lora_rank=8, bits_per_rank=1e5, noise_ratio=50.0,
        allocation="work-conserving",
    )  # fmt: skip

    def of_links(**link: np.ndarray) -> float:
        return limit_seconds(fp.Clients.from_columns(**columns, **link), system)

    bits = 1e7 * of_links(spectral_efficiency=np.ones(len(snr)))  # hertz-seconds at 1 bit/s/Hz
    carried = bits / of_links(snr_hz=snr)  # bit/s, of all together
    shares = np.random.default_rng(0).dirichlet(np.full(len(snr), 0.5), 1000)
    assert np.all(rate_bps(shares * 1e7, snr_hz=snr).sum(axis=1) < carried)
    # All who send side by side, in shares as their signals are, carry as much.
    assert rate_bps(snr / snr.sum() * 1e7, snr_hz=snr).sum() == pytest.approx(carried)
    clients = fp.Clients.from_columns(**columns, snr_hz=snr)
    for schedule in ("synchronous", "overlapping"):
        made = fp.plan(clients, system, schedule=schedule)
        assert made.objective_seconds > made.limit_seconds == of_links(snr_hz=snr)
