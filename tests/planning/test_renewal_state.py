"""What rounds have shown of devices and links."""

from dataclasses import replace

import numpy as np
import pytest

from fedpace.core.plan import Decision, Plan
from fedpace.core.profile import Clients
from fedpace.planning.renewal import renew_every
from fedpace.planning.renewal_state import informed
from fedpace.wireless.latency import download_bits
from planning.renewed_world import (
    best_plan,
    renewal_of,
    simulate,
)


@pytest.mark.parametrize("shannon", [False, True])
def test_devices_and_links_slower_than_profiled_are_found_out(world, clients, system, shannon):
    columns = dict(clients.columns())
    if shannon:
        columns["snr_hz"] = 2e5 * 2 ** columns.pop("spectral_efficiency")
    profiled = Clients.from_columns(**columns)
    slow = np.where(np.arange(50) % 2, 3.0, 1.0)
    columns["step_seconds"] = columns["step_seconds"] * slow
    link = "snr_hz" if shannon else "spectral_efficiency"
    columns[link] = columns[link] / slow
    real = Clients.from_columns(**columns)
    # In every second round a share of the band for Shannon links to be matched at: W / (sum q).
    plan = Plan("test", profiled.client_id, Decision(np.full(50, 1.0), np.full(50, 4)))
    system_of = replace(system, bandwidth_hz=2e5 * 50)
    renewal = renew_every(
        lambda c, s, start, predict: start, profiled, system_of, every=5, objective=lambda *_: 1.0
    )
    _, renewal = simulate(world, real, system_of, renewal, plan, 120)
    seen, _ = informed(renewal.state, profiled, system_of, renewal.noise_scale(), plan)
    np.testing.assert_allclose(seen.step_seconds, real.step_seconds, rtol=0.01)
    np.testing.assert_allclose(getattr(seen, link), getattr(real, link), rtol=0.02)


def test_where_all_is_as_profiled_the_profile_is_kept(world, clients, system):
    renewal, plan = renewal_of(clients, system), best_plan(clients, system)
    _, renewal = simulate(world, clients, system, renewal, plan, 30)
    seen, _ = informed(renewal.state, clients, system, renewal.noise_scale(), plan)
    for name in ("step_seconds", "download_seconds", "spectral_efficiency"):
        np.testing.assert_allclose(getattr(seen, name), getattr(clients, name), rtol=1e-12)


def test_the_downlink_is_not_blamed_on_the_clients(world, clients, system):
    slow = replace(system, downlink_bps=1e6)
    assert download_bits(slow, [4.0])[0] / slow.downlink_bps > 1
    renewal, plan = renewal_of(clients, slow), best_plan(clients, system)
    _, renewal = simulate(world, clients, slow, renewal, plan, 20)
    seen, _ = informed(renewal.state, clients, slow, renewal.noise_scale(), plan)
    np.testing.assert_allclose(seen.step_seconds, clients.step_seconds, rtol=1e-9)
