from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from fedpace.core.errors import InputError
from fedpace.core.profile import System
from fedpace.wireless.channel import rate_bps, received_snr_hz, uplink
from fedpace.wireless.population import (
    SCENARIOS,
    Scenario,
    draw_clients,
    scenario_named,
    upload_compute_ratio,
)

SYSTEM = System(bandwidth_hz=20e6, lora_rank=16, local_steps=5, fixed_bits=1e5, bits_per_rank=1e6)
PLAIN = Scenario("plain", upload_compute_ratio=None)
MANY = np.ones(20_000)


def full_rank_step(clients):
    return clients.step_seconds + SYSTEM.lora_rank * clients.step_seconds_per_rank


def test_equal_seeds_give_equal_clients_and_others_do_not():
    one, same, other = (draw_clients(PLAIN, np.ones(9), seed, SYSTEM) for seed in (1, 1, 2))
    for name, column in one.columns().items():
        np.testing.assert_array_equal(column, same.columns()[name])
    assert not np.any(one.step_seconds == other.step_seconds)


def test_users_are_uniform_in_the_disc():
    # Without shadowing the efficiency falls with distance, so the share of clients better than a
    # user at distance d is the share of the disc inside d.
    cell = replace(PLAIN, shadowing_db=0.0)
    efficiency = draw_clients(cell, MANY, 0, SYSTEM).spectral_efficiency
    for distance_km in (0.9, 1.2, 1.6):
        at = np.log2(1 + received_snr_hz(distance_km) / cell.share_hz)
        area = (distance_km**2 - 0.035**2) / (cell.cell_radius_km**2 - 0.035**2)
        assert abs(np.mean(efficiency > at) - area) < 4 * 0.5 / np.sqrt(len(MANY))


def test_shadowing_is_normal_in_decibels():
    # Everyone at 35 m; a whisper of power puts the median within the range of modulations.
    cell = replace(PLAIN, cell_radius_km=0.035, tx_power_dbm=-33.0)
    efficiency = draw_clients(cell, MANY, 0, SYSTEM).spectral_efficiency
    quartiles = np.quantile(10 * np.log10(2**efficiency - 1), [0.25, 0.5, 0.75])
    median = 10 * np.log10(received_snr_hz(0.035, tx_power_dbm=-33.0) / cell.share_hz)
    np.testing.assert_allclose(quartiles, median + 8.0 * stats.norm.ppf([0.25, 0.5, 0.75]),
                               atol=0.35)  # fmt: skip


def test_efficiencies_stay_within_what_the_modulations_offer():
    efficiency = draw_clients(PLAIN, MANY, 0, SYSTEM).spectral_efficiency
    assert efficiency.min() == 0.1523 and efficiency.max() == 5.5547


def test_both_kinds_of_link_agree_at_the_share():
    constant = draw_clients(PLAIN, MANY[:50], 0, SYSTEM)
    shannon = draw_clients(replace(PLAIN, link="shannon"), MANY[:50], 0, SYSTEM)
    np.testing.assert_allclose(
        rate_bps(PLAIN.share_hz, **uplink(shannon)), rate_bps(PLAIN.share_hz, **uplink(constant))
    )


def test_step_times_are_log_normal():
    logs = np.log(full_rank_step(draw_clients(replace(PLAIN, step_spread=0.6), MANY, 0, SYSTEM)))
    assert stats.kstest(logs, "norm", args=(0, 0.6)).pvalue > 0.01


def test_the_rank_share_of_a_step_is_proportional_to_the_rank():
    clients = draw_clients(replace(PLAIN, rank_share=0.25), np.ones(5), 0, SYSTEM)
    np.testing.assert_allclose(clients.step_seconds, 0.75 * full_rank_step(clients))


def test_phones_and_nanos_step_as_they_were_measured():
    step = full_rank_step(draw_clients(SCENARIOS["phones-and-nanos"], MANY[:500], 0, SYSTEM))
    phones, nanos = step[step > 100], step[step < 100]
    assert phones.min() >= 170 and phones.max() <= 174
    assert nanos.min() >= 11.4 and nanos.max() <= 14.1
    assert 200 < len(phones) < 300


def test_pcs_and_phones_step_as_they_were_measured_and_each_is_as_frequent():
    step = full_rank_step(draw_clients(SCENARIOS["pc-to-phone"], MANY, 0, SYSTEM))
    times, counts = np.unique(step.round(6), return_counts=True)
    assert times.tolist() == [1.1, 2.7, 4.3, 7.3, 21, 100]
    shares = counts / len(MANY) * 7  # two of the seven take 21 s
    np.testing.assert_allclose(shares, [1, 1, 1, 1, 2, 1], atol=0.1)


@pytest.mark.parametrize("name", ["own-uplinks", "pc-to-phone"])
def test_uplinks_are_those_of_the_users_that_were_measured(name):
    clients = draw_clients(SCENARIOS[name], MANY, 0, SYSTEM)
    rate = rate_bps(clients.max_bandwidth_hz, **uplink(clients)) / 1e3
    assert 431 <= rate.min() < 445
    assert 6620 < rate.max() <= 6635
    quartiles = np.quantile(rate, [0.25, 0.5, 0.75])
    np.testing.assert_allclose(quartiles, [2703, 3286, 5038], rtol=0.02)
    assert np.std(rate) / np.mean(rate) == pytest.approx(0.45, abs=0.01)
    assert abs(stats.spearmanr(rate, clients.step_seconds)[0]) < 0.03


def test_uplinks_of_their_own_follow_the_sizes_and_keep_the_ratio():
    heavy = np.exp(np.random.default_rng(0).normal(size=2000))
    scenario = replace(SCENARIOS["own-uplinks"], size_slowness_correlation=0.8)
    clients = draw_clients(scenario, heavy, 0, SYSTEM)
    assert stats.spearmanr(clients.max_bandwidth_hz, heavy)[0] < -0.7
    # Alone on their uplinks, as five never fill the line.
    upload = (SYSTEM.fixed_bits + 16 * SYSTEM.bits_per_rank) / clients.max_bandwidth_hz
    wide = replace(SYSTEM, bandwidth_hz=100e6)
    assert np.mean(upload) == pytest.approx(5 * np.mean(full_rank_step(clients)), rel=0.2)
    again = draw_clients(scenario, heavy, 0, wide)
    assert np.mean(upload) == pytest.approx(5 * np.mean(full_rank_step(again)), rel=1e-9)


@pytest.mark.parametrize("uplinks", [(), (1e6,), (2e6, 1e6), (0.0, 1e6), (1e6, float("nan"))])
def test_uplinks_that_are_none_are_refused(uplinks):
    with pytest.raises(InputError, match="two rates or more, ascending, above 0"):
        Scenario("x", uplink_bps=uplinks)


def test_an_uplink_of_its_own_is_a_rate_so_its_link_is_constant():
    with pytest.raises(InputError, match="uplink_bps with link = 'shannon'; set 'constant'"):
        Scenario("x", uplink_bps=(1e6, 2e6), link="shannon")


def test_part_of_the_clients_hold_a_quarter_of_the_ranks_and_nothing_else_changes():
    some = draw_clients(replace(PLAIN, small_memory_share=0.3), MANY, 0, SYSTEM)
    none = draw_clients(PLAIN, MANY, 0, SYSTEM)
    assert set(some.max_rank) == {4.0, np.inf}
    assert abs(np.mean(some.max_rank == 4) - 0.3) < 0.015
    np.testing.assert_array_equal(some.step_seconds, none.step_seconds)
    np.testing.assert_array_equal(some.spectral_efficiency, none.spectral_efficiency)


@pytest.mark.parametrize("link", ["constant", "shannon"])
@pytest.mark.parametrize("count", [3, 200])
@pytest.mark.parametrize("ratio", [0.3, 1.0, 3.0])
def test_the_upload_compute_ratio_is_kept(link, count, ratio):
    scenario = replace(PLAIN, upload_compute_ratio=ratio, link=link)
    clients = draw_clients(scenario, np.ones(count), 0, SYSTEM)
    np.testing.assert_allclose(upload_compute_ratio(clients, SYSTEM), ratio, rtol=1e-12)
    unscaled = draw_clients(replace(scenario, upload_compute_ratio=None), np.ones(count), 0, SYSTEM)
    factor = clients.step_seconds / unscaled.step_seconds
    np.testing.assert_allclose(factor, factor[0])
    np.testing.assert_allclose(clients.step_seconds_per_rank / unscaled.step_seconds_per_rank,
                               factor[0])  # fmt: skip


def test_the_ratio_is_the_time_the_band_needs_for_a_cohort_over_computation():
    clients = draw_clients(PLAIN, np.ones(40), 0, SYSTEM)
    demand = (1e5 + 16e6) / clients.spectral_efficiency
    by_hand = (4 * demand.mean() / 20e6) / (5 * full_rank_step(clients).mean())
    np.testing.assert_allclose(upload_compute_ratio(clients, SYSTEM, 4), by_hand, rtol=1e-12)


def test_devices_are_as_fast_in_a_large_population_as_in_a_small_one():
    median = [
        np.median(draw_clients(scenario_named("cell-balanced"), np.ones(n), 0, SYSTEM).step_seconds)
        for n in (100, 20_000)
    ]
    # The mean of 100 log-normal step times is off by a tenth; a cohort of N / 10 gave a factor 200.
    assert 0.6 < median[1] / median[0] < 1.6


@pytest.mark.parametrize("correlation", [-1.0, -0.5, 0.5, 0.9, 1.0])
def test_large_clients_are_slow_or_fast_as_the_correlation_says(correlation):
    weight = np.random.default_rng(5).lognormal(0, 1, 5000)
    with_it = replace(PLAIN, size_slowness_correlation=correlation, shadowing_db=2.0)
    clients = draw_clients(with_it, weight, 0, SYSTEM)
    # Rank correlation of a Gaussian copula.
    expected = 6 / np.pi * np.arcsin(correlation / 2)
    assert abs(stats.spearmanr(weight, clients.step_seconds)[0] - expected) < 0.04
    # Equal efficiencies at the ends of the range tie, which weakens it a little.
    assert abs(stats.spearmanr(weight, 1 / clients.spectral_efficiency)[0] - expected) < 0.08


def test_correlation_deals_the_same_times_out_to_others():
    weight = np.arange(1.0, 101.0)
    without = draw_clients(PLAIN, weight, 0, SYSTEM)
    with_it = draw_clients(replace(PLAIN, size_slowness_correlation=1.0), weight, 0, SYSTEM)
    np.testing.assert_array_equal(with_it.step_seconds, np.sort(without.step_seconds))
    np.testing.assert_array_equal(
        with_it.spectral_efficiency, np.sort(without.spectral_efficiency)[::-1]
    )


def test_equal_data_is_neither_slow_nor_fast_in_the_order_of_the_clients():
    scenario = replace(PLAIN, size_slowness_correlation=1.0)
    step = draw_clients(scenario, np.ones(2000), 0, SYSTEM).step_seconds
    assert abs(stats.spearmanr(np.arange(2000), step)[0]) < 0.08


def test_presets_are_as_their_names_say():
    weight = np.ones(400)
    drawn = {
        name: draw_clients(scenario, weight, 0, SYSTEM) for name, scenario in SCENARIOS.items()
    }
    assert all(name == scenario.name for name, scenario in SCENARIOS.items())
    ratio = {name: upload_compute_ratio(clients, SYSTEM) for name, clients in drawn.items()}
    assert ratio["cell-compute-bound"] < ratio["cell-balanced"] < ratio["cell-link-bound"]
    for column in ("step_seconds", "spectral_efficiency"):
        spread = {n: np.std(np.log(getattr(clients, column))) for n, clients in drawn.items()}
        assert spread["cell-mild"] < 0.5 * spread["cell-balanced"]


def test_clients_carry_their_names_and_weights():
    clients = draw_clients(PLAIN, [3, 1], 0, SYSTEM, client_id=["north", "south"])
    assert clients.client_id.tolist() == ["north", "south"]
    assert clients.data_weight.tolist() == [0.75, 0.25]


def test_an_unknown_scenario_lists_the_known_ones():
    assert scenario_named("cell-mild") is SCENARIOS["cell-mild"]
    with pytest.raises(InputError, match="'moon' is unknown; choose one of cell-balanced, "):
        scenario_named("moon")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("bandwidth_hz", 0.0),
        ("cell_radius_km", 0.01),
        ("step_spread", float("nan")),
        ("rank_share", 1.5),
        ("upload_compute_ratio", 0.0),
        ("size_slowness_correlation", 1.01),
        ("small_memory_share", -0.1),
        ("link", "laser"),
        ("device_step_seconds", ()),
        ("device_step_seconds", ((2.0, 1.0),)),
    ],
)
def test_a_scenario_out_of_range_is_refused_by_field_and_value(field, value):
    with pytest.raises(InputError, match=f"scenario 'plain': {field} is .*(must be|choose|give)"):
        replace(PLAIN, **{field: value})
