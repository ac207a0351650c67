"""docs/extending.md: its blocks are run, are short, and do what the page says."""

import re
from pathlib import Path

import numpy as np
import pytest

from federation.toy import LAYOUT, context, exchange, follower, make_plan, random_adapter
from fedpace.core.messages import ClientTask, ClientUpdate
from fedpace.engines.exchange import Exchange, decode_update, encode_update
from fedpace.federation.hooks.hook import hooked
from fedpace.federation.rounds import Federation, ServerState, run_round
from fedpace.federation.server_optimizer import server_sgd

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
