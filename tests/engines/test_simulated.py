"""The simulated engine against seconds and bytes computed by hand."""

import numpy as np
import pytest

from federation.toy import LAYOUT, blank, exchange, random_adapter, towards
from fedpace.core.adapter import take_components
from fedpace.core.messages import ClientTask, ClientUpdate
from fedpace.core.profile import Clients, System
from fedpace.core.sketch import LEADING, RESIDUAL, SCALED
from fedpace.engines.exchange import upload_bytes
from fedpace.engines.simulated import SimulatedEngine
from fedpace.wireless.network import Network, charge


def system(**changes):
    return System(**{"bandwidth_hz": 1000.0, "lora_rank": 4, "local_steps": 5, "fixed_bits": 0.0,
                     "bits_per_rank": 1.0, **changes})  # fmt: skip


def clients(**changes):
    columns = {
        "data_weight": [1, 1, 1],
        "step_seconds": [0.1, 0.2, 0.4],
        "step_seconds_per_rank": [0.0, 0.0, 0.1],
        "spectral_efficiency": [1.0, 2.0, 4.0],
    }
    return Clients.from_columns(**{**columns, **changes})


def tasks(who, rank=2, round_index=0):
    return [ClientTask(n, round_index, blank(), rank, 0) for n in who]


def engine(network, now=0.0):
    return SimulatedEngine(
        towards(random_adapter(0)), network, exchange(network.system.sketch), seed=0, now=now
    )


def test_one_client_computes_then_sends_over_the_whole_band():
    simulated = engine(Network(clients(), system()))
    outcome = simulated.run_round(0, tasks([2]))
    bits = 8 * upload_bytes(exchange(), 2)
    expected = 5 * (0.4 + 0.1 * 2) + bits / (4.0 * 1000)
    assert outcome.round_seconds == pytest.approx(expected)
    assert simulated.now() == pytest.approx(expected)
    assert outcome.deliveries[0].upload_bytes == upload_bytes(exchange(), 2)


def test_all_participants_finish_together_within_the_band():
    network = Network(clients(), system(allocation="equal-finish"))
    outcome = engine(network).run_round(0, tasks([0, 1, 2]))
    finish = [d.start_seconds + d.upload_seconds for d in outcome.deliveries]
    np.testing.assert_allclose(finish, outcome.round_seconds)
    assert sum(d.bandwidth_hz for d in outcome.deliveries) == pytest.approx(1000.0)


def test_equal_share_is_never_earlier_than_equal_finish_nor_that_than_a_busy_band():
    seconds = {
        rule: engine(Network(clients(), system(allocation=rule)))
        .run_round(0, tasks([0, 1, 2])).round_seconds
        for rule in ("work-conserving", "equal-finish", "equal-share")
    }  # fmt: skip
    assert seconds["equal-share"] > seconds["equal-finish"] > seconds["work-conserving"]


def test_an_empty_round_costs_its_overhead_alone():
    simulated = engine(Network(clients(), system(overhead_seconds=0.25)), now=3.0)
    assert simulated.run_round(0, []).round_seconds == 0.25
    assert simulated.now() == 3.25


def test_a_client_that_does_not_answer_neither_trains_nor_sends():
    simulated = engine(Network(clients(availability=[1.0, 1e-9, 1.0]), system()))
    outcome = simulated.run_round(0, tasks([0, 1, 2]))
    assert [u.client for u in outcome.updates] == [0, 2]


def test_a_scaled_client_downloads_its_components_and_a_residual_one_the_whole_adapter():
    for sketch, rank in ((SCALED, 2), (RESIDUAL, 4)):
        outcome = engine(Network(clients(), system(sketch=sketch))).run_round(0, tasks([0]))
        assert outcome.deliveries[0].download_bytes == upload_bytes(exchange(), rank)


def test_fading_changes_the_round_but_not_with_who_else_joins():
    network = Network(clients(), system(fading=True))
    still = engine(Network(clients(), system())).run_round(0, tasks([1])).round_seconds
    alone = engine(network).run_round(0, tasks([1]))
    assert alone.round_seconds != still
    # Efficiency of client 1 in this round, from the time it took alone and in company.
    in_company = engine(network).run_round(0, tasks([0, 1])).deliveries[1]
    rate = [d.upload_bytes / (d.upload_seconds * d.bandwidth_hz)
            for d in (alone.deliveries[0], in_company)]  # fmt: skip
    assert rate[0] == pytest.approx(rate[1])


def test_shannon_links_are_served_too():
    shannon = Clients.from_columns(data_weight=[1, 1], step_seconds=[0.1, 0.3], snr_hz=[5e3, 9e3])
    network = Network(shannon, system(allocation="equal-finish"))
    outcome = engine(network).run_round(0, tasks([0, 1]))
    finish = [d.start_seconds + d.upload_seconds for d in outcome.deliveries]
    np.testing.assert_allclose(finish, outcome.round_seconds)


def test_what_a_task_has_to_receive_is_charged_on_the_downlink():
    """The bytes of the message, whatever the system has been told: all r for the residual sketch,
    k for the others."""
    for sketch, received in [(RESIDUAL, 4), (SCALED, 2), (LEADING, 2)]:
        slow = Network(clients(), system(sketch=sketch, downlink_bps=1e3, bits_per_rank=100.0))
        trainer = SimulatedEngine(
            leading if sketch == LEADING else towards(random_adapter(0)), slow,
            exchange(sketch), seed=0,
        )  # fmt: skip
        (delivery,) = trainer.run_round(0, tasks([0])).deliveries
        assert delivery.download_bytes == upload_bytes(exchange(), received)
        waited = delivery.start_seconds - 5 * 0.1
        assert waited == pytest.approx(8 * delivery.download_bytes / 1e3)


def leading(tasks):
    """A trainer of the first components."""
    return [
        ClientUpdate(t.client, t.round_index, np.arange(t.sketch_rank),
                     take_components(t.adapter, LAYOUT, np.arange(t.sketch_rank)), 1.0)
        for t in tasks
    ]  # fmt: skip


@pytest.mark.parametrize("rule", ["work-conserving", "equal-finish", "equal-share"])
def test_a_round_charged_again_takes_the_seconds_it_took(rule):
    slow = system(overhead_seconds=0.5, allocation=rule, downlink_bps=1e4, fading=True)
    network = Network(clients(), slow)
    outcome = engine(network).run_round(3, tasks([0, 2], round_index=3))
    bits = 8.0 * np.array([d.upload_bytes for d in outcome.deliveries])
    down = 8.0 * np.array([d.download_bytes for d in outcome.deliveries])
    _, share = charge(network, 0, 3, np.array([0, 2]), np.array([2, 2]), bits, down)
    assert share.finish_seconds.max() + 0.5 == pytest.approx(outcome.round_seconds, rel=1e-12)
