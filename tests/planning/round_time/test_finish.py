"""Rounds with given participants, many at once, are those that the allocator divides one by one."""

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from fedpace.core.profile import AllocationRule
from fedpace.planning.round_time.finish import round_seconds
from fedpace.planning.round_time.law import RoundLaw
from fedpace.wireless.bandwidth import allocate_bandwidth
from planning.round_time.test_never_idle import KINDS, SYSTEM, population


@pytest.mark.parametrize("rule", get_args(AllocationRule))
@pytest.mark.parametrize(("kind", "limits"), KINDS)
def test_rounds_take_what_their_allocation_takes(rule, kind, limits):
    clients, q, k = population(20, 1, kind, limits)
    law = RoundLaw.of(q, k, clients, replace(SYSTEM, allocation=rule))
    joined = np.random.default_rng(0).random((30, 20)) < 0.3
    joined[4] = False
    found = round_seconds(law, joined)
    for row, seconds in zip(joined, found, strict=True):
        expected = allocate_bandwidth(
            law.start[row], law.bits[row], law.band, rule=rule,
            **{name: column[row] for name, column in law.link.items()},
            max_bandwidth_hz=clients.max_bandwidth_hz[row],
        ).round_seconds  # fmt: skip
        assert seconds == pytest.approx(expected, rel=1e-9)
