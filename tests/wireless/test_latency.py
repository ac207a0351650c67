from dataclasses import replace

import numpy as np
import pytest

from fedpace.core.errors import InputError
from fedpace.core.profile import Clients, System
from fedpace.core.sketch import RESIDUAL, SCALED
from fedpace.wireless.latency import (
    download_bits,
    start_seconds,
    start_seconds_per_rank,
    upload_bits,
)

CLIENTS = Clients.from_columns(
    data_weight=[1, 2],
    step_seconds=[0.5, 2.0],
    step_seconds_per_rank=[0.125, 0.0],
    download_seconds=[0.0, 3.0],
    spectral_efficiency=[1, 2],
)


def system(sketch, downlink_bps=1000.0):
    return System(
        bandwidth_hz=1e6, lora_rank=8, local_steps=4, fixed_bits=500, bits_per_rank=250,
        sketch=sketch, downlink_bps=downlink_bps,
    )  # fmt: skip


def test_a_client_sends_the_head_and_its_own_components():
    np.testing.assert_array_equal(upload_bits(system(SCALED), [1, 8]), [750, 2500])


def test_scaled_clients_receive_their_components_and_residual_ones_the_whole_adapter():
    np.testing.assert_array_equal(download_bits(system(SCALED), [1, 8]), [750, 2500])
    np.testing.assert_array_equal(download_bits(system(RESIDUAL), [1, 8]), [2500, 2500])


def test_what_every_download_brings_may_differ_from_what_every_upload_takes():
    at = replace(system(SCALED), download_fixed_bits=100.0, download_bits_per_rank=500.0)
    np.testing.assert_array_equal(upload_bits(at, [1, 8]), [750, 2500])
    np.testing.assert_array_equal(download_bits(at, [1, 8]), [600, 4100])
    expected = start_seconds(CLIENTS, replace(at, downlink_bps=np.inf), [1, 8]) + [0.6, 4.1]
    np.testing.assert_allclose(start_seconds(CLIENTS, at, [1, 8]), expected)
    with pytest.raises(InputError, match="download_fixed_bits is -1"):
        replace(at, download_fixed_bits=-1.0)


def test_start_is_fixed_delay_then_download_then_local_steps():
    # by hand, k = 2 and 4: 0.75 + 4 * 0.5 + 4 * 2 * 0.125 = 3.75 at bits 1000 -> 1 s
    expected = [1.0 + 4 * (0.5 + 2 * 0.125), 3.0 + 1.5 + 4 * 2.0]
    np.testing.assert_allclose(start_seconds(CLIENTS, system(SCALED), [2, 4]), expected)
    expected = [2.5 + 4 * (0.5 + 2 * 0.125), 3.0 + 2.5 + 4 * 2.0]
    np.testing.assert_allclose(start_seconds(CLIENTS, system(RESIDUAL), [2, 4]), expected)


def test_an_infinite_downlink_costs_no_time():
    np.testing.assert_allclose(
        start_seconds(CLIENTS, system(SCALED, np.inf), [0, 0]), [4 * 0.5, 3.0 + 4 * 2.0]
    )


@pytest.mark.parametrize("sketch", [SCALED, RESIDUAL])
def test_the_derivative_is_the_difference_between_neighbouring_ranks(sketch):
    at = system(sketch)
    rank = np.array([1.0, 6.5])
    difference = start_seconds(CLIENTS, at, rank + 1) - start_seconds(CLIENTS, at, rank)
    np.testing.assert_allclose(start_seconds_per_rank(CLIENTS, at), difference, rtol=1e-12)
