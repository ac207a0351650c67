"""docs/extending.md: its blocks are run, are short, and do what the page says."""

import re
from pathlib import Path

import numpy as np
import pytest

import fedpace as fp
from federation.toy import LAYOUT, context, exchange, follower, make_plan, random_adapter
from fedpace.core.messages import ClientTask, ClientUpdate
from fedpace.engines.exchange import Exchange, decode_update, encode_update
from fedpace.federation.hooks.hook import hooked
from fedpace.federation.rounds import Federation, ServerState, run_round
from fedpace.federation.server_optimizer import server_sgd
from fedpace.planning.planner import PLANNERS
from fedpace.planning.round_time.band_smoothing import band_smoothing
from fedpace.planning.round_time.finish import round_seconds
from fedpace.planning.round_time.law import RoundLaw
from fedpace.planning.round_time.never_idle import NeverIdle
from fedpace.wireless.channel import rate_bps
from fedpace.wireless.links import LINKS

PAGE = Path(__file__).parent.parent / "docs" / "extending.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.M | re.S)


@pytest.fixture(scope="module")
def names():
    found = {}
    for block in BLOCKS:
        exec(compile(block, str(PAGE), "exec"), found)
    return found


def test_each_block_is_of_forty_lines_at_most():
    assert BLOCKS
    assert all(block.count("\n") <= 40 for block in BLOCKS)


def test_the_method_on_the_engine_of_the_page_is_an_average_of_b_alone(names):
    method, start = names["equal_vote"](context()), random_adapter(1)
    engine = names["SecondByRound"](follower(method, random_adapter(9), 1.0),
                                    exchange(aggregation=method, initial=start))  # fmt: skip
    setting = Federation(
        method="equal-vote", layout=LAYOUT, data_weight=np.array([0.9, 0.1]),
        availability=np.ones(2), aggregation=method, server_optimizer=server_sgd(1.0), seed=5,
    )  # fmt: skip
    state = ServerState(0, start, {}, make_plan(np.ones(2), [4, 4]))
    record, after = run_round(engine, setting, state)
    assert record.round_seconds == engine.now() == 1.0
    for t in LAYOUT.tensors:
        expected = start[t.name] if t.role == "A" else random_adapter(9)[t.name]
        np.testing.assert_allclose(after.adapter[t.name], expected, atol=1e-6)


def test_the_hook_of_the_page_cuts_what_is_long_on_its_way(names):
    hooks = (names["clipping"](2.0),)
    plain = exchange()
    traffic = Exchange(LAYOUT, plain.initial, plain.aggregation, hooks)
    assert hooked(plain.aggregation, hooks).unbiased == plain.aggregation.unbiased
    task, long = ClientTask(0, 0, {}, 4, 5), random_adapter(3)
    update = ClientUpdate(0, 0, traffic.components(task), long, 0.5)
    came = decode_update(traffic, encode_update(traffic, update, task), task, 0.5)
    norm = sum(float(np.sum(v.astype(float) ** 2)) for v in long.values()) ** 0.5
    assert norm > 2
    for name, value in long.items():
        np.testing.assert_allclose(came.delta[name], value * 2 / norm, rtol=1e-5)


def test_the_planner_of_the_page_asks_the_faster_half(names, monkeypatch):
    monkeypatch.setitem(PLANNERS, "faster-half", names["faster_half"])
    clients = fp.Clients.from_columns(
        data_weight=[1, 1, 2], step_seconds=[0.1, 0.1, 0.8], spectral_efficiency=[2, 1, 1]
    )
    system = fp.System(bandwidth_hz=2e6, lora_rank=8, allocation="work-conserving")
    made = fp.plan(clients, system, "faster-half")
    assert made.sampling_probability.tolist() == [1.0, 1.0, 0.001]
    assert made.objective_seconds >= fp.plan(clients, system).objective_seconds


@pytest.mark.parametrize("rule", ["equal-finish", "work-conserving", "equal-share"])
def test_the_link_of_the_page_is_shannons_with_so_many_more_bits(names, monkeypatch, rule):
    monkeypatch.setitem(LINKS, "attenuated_snr_hz", names["Attenuated"]())
    start, bits = np.array([0.0, 1.0, 2.5, 2.6]), np.array([1e6, 4e6, 2e6, 3e6])
    snr, limit = np.array([3e6, 8e6, 2e7, 1e7]), np.array([1e6, 3e5, 5e6, 4e5])
    ours, theirs = (
        fp.allocate_bandwidth(start, sent, 2e6, max_bandwidth_hz=limit, rule=rule, **{name: snr})
        for name, sent in (("attenuated_snr_hz", bits), ("snr_hz", bits / 0.4))
    )
    np.testing.assert_allclose(ours.finish_seconds, theirs.finish_seconds, rtol=1e-9)
    np.testing.assert_allclose(ours.bandwidth_hz, theirs.bandwidth_hz, rtol=1e-6)

    # The law of the round time sees it as it sees Shannon's.
    def law(name, sent):
        solo = sent / rate_bps(np.minimum(limit, 2e6), **{name: snr})
        return RoundLaw(np.full(4, 0.6), start, solo, sent, limit / 2e6, {name: snr}, 2e6, rule)

    shannon, attenuated = law("snr_hz", bits / 0.4), law("attenuated_snr_hz", bits)
    quadrature, smoothing = shannon.quadrature(), band_smoothing(8)
    ours, theirs = (each.mean(quadrature, smoothing) for each in (attenuated, shannon))
    np.testing.assert_allclose(ours.value, theirs.value, atol=1e-9)
    np.testing.assert_allclose(ours.d_bits, theirs.d_bits / 0.4, rtol=1e-6)
    ours, theirs = (NeverIdle.near(each).mean() for each in (attenuated, shannon))
    assert ours.value == pytest.approx(theirs.value, rel=1e-6)
    joined = np.random.default_rng(0).random((20, 4)) < 0.6
    ours, theirs = (round_seconds(each, joined) for each in (attenuated, shannon))
    np.testing.assert_allclose(ours, theirs, rtol=1e-9)
