"""A world of known noise, for the tests of renewals."""

import numpy as np
import pytest

from fedpace.core.profile import Clients, System
from planning.known_noise import KnownNoise


@pytest.fixture
def world():
    return KnownNoise(apart=3.0, noise=3.0)


@pytest.fixture
def system():
    return System(bandwidth_hz=1e7, lora_rank=4, noise_ratio=1.0, downlink_bps=1e8)


@pytest.fixture
def clients(world):
    rng = np.random.default_rng(0)
    return Clients.from_columns(
        data_weight=world.data_weight,
        step_seconds=rng.lognormal(-2, 0.7, 50),
        spectral_efficiency=rng.lognormal(0, 0.7, 50),
    )
