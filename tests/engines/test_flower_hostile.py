"""Answers that no honest client sends: each is refused and recorded, and the round goes on."""

import json

import numpy as np
import pytest

pytest.importorskip("flwr")

from dataclasses import replace

from flwr.app import ConfigRecord, Message, RecordDict
from safetensors.numpy import save

from contracts.test_engines import N, federation, flower
from engines.fake_grid import FakeGrid
from federation.toy import LAYOUT, make_plan, random_adapter
from fedpace.core.sketch import RESIDUAL
from fedpace.engines.flower.client import make_client_app
from fedpace.engines.flower.messages import told
from fedpace.engines.flower.roster import Roster
from fedpace.federation.checks import Checks
from fedpace.federation.rounds import ServerState, run_round

BAD = 3
LORA, HEAD = LAYOUT.values_per_rank * LAYOUT.rank, LAYOUT.head_values


def body(lora=None, head=None, **more):
    lora = np.zeros(LORA, np.float32) if lora is None else lora
    head = np.zeros(HEAD, np.float32) if head is None else head
    return save({"lora": lora, "head": head, **more})


def of_type(name, size):
    """A safetensors block of a type that NumPy has not."""
    header = json.dumps({"lora": {"dtype": name, "shape": [size], "data_offsets": [0, size]}})
    return len(header).to_bytes(8, "little") + header.encode() + bytes(size)


BODIES = {
    "nothing": b"",
    "noise": np.random.default_rng(0).bytes(400),
    "another shape": body(np.zeros((1, LORA), np.float32)),
    "too few": body(np.zeros(LORA - 1, np.float32)),
    "another type": body(np.zeros(LORA, np.float64)),
    "an unknown type": of_type("F8_E4M3", 64),
    "no number": body(np.full(LORA, np.nan, np.float32)),
    "infinite": body(head=np.full(HEAD, np.inf, np.float32)),
    "infinite as bfloat16": body(np.full(LORA, 0x7F80, np.uint16), np.zeros(HEAD, np.uint16)),
    "scales that are none": body(scale=np.zeros(2, np.float32)),
    "ballast": body(more=np.zeros(100_000, np.float32)),
    "long": body(np.full(LORA, 1e6, np.float32)),
}
HEADS = {
    "another run": {"run": "other"},
    "another round": {"round": 99},
    "another client": {"client": 1},
    "no loss": {"train_loss": None},
    "a loss of words": {"train_loss": "low"},
    "a loss that is none": {"train_loss": float("nan")},
    "no time": {"train_seconds": None},
    "time backwards": {"train_seconds": -1e9},
    "time that is none": {"train_seconds": float("nan")},
    "endless time": {"train_seconds": float("inf")},
    "very much text": {"run": "x" * 100_000},
}
WHOLE = {
    "no parts": RecordDict({}),
    "other parts": RecordDict({"parts": ConfigRecord({"bytes": b""})}),
    "a body of words": RecordDict(
        {"head": ConfigRecord({"run": "r"}), "body": ConfigRecord({"bytes": "words"})}
    ),
}


def with_body(data):
    def spoil(reply):
        head = reply.content.config_records["head"]
        return RecordDict({"head": head, "body": ConfigRecord({"bytes": data})})

    return spoil


def with_head(changes):
    def spoil(reply):
        head = {**reply.content.config_records["head"], **changes}
        head = ConfigRecord({name: value for name, value in head.items() if value is not None})
        return RecordDict({"head": head, "body": reply.content.config_records["body"]})

    return spoil


HOSTILE = {
    **{f"body: {name}": with_body(data) for name, data in BODIES.items()},
    **{f"head: {name}": with_head(changes) for name, changes in HEADS.items()},
    **{f"whole: {name}": lambda reply, content=content: content for name, content in WHOLE.items()},
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_answer_is_refused_and_recorded_and_the_others_count(kind):
    made = flower(RESIDUAL)
    spoil = HOSTILE[kind]

    def fault(reply):
        changed = Message(spoil(reply), dst_node_id=1, message_type="train")
        changed.metadata.__dict__.update(reply.metadata.__dict__)
        return changed

    made.engine.grid.faults[1000 - BAD] = fault
    setting = replace(federation(RESIDUAL), checks=Checks(strikes=2))
    adapter = random_adapter(1)
    state = ServerState(
        0, adapter, setting.server_optimizer.init(adapter), make_plan(np.ones(N), [4] * N)
    )
    records = []
    for _ in range(3):
        record, state = run_round(made.engine, setting, state)
        records.append(record)
        json.dumps(record.to_json(), allow_nan=False)
    assert [[client for client, _ in r.refusals] for r in records] == [[BAD], [BAD], []]
    assert all(len(reason) <= 300 for r in records for _, reason in r.refusals)
    others = [n for n in range(N) if n != BAD]
    assert [[p.client for p in r.participants] for r in records] == [others] * 3


FACTS = {
    "nameless": {"examples": 1},
    "a name that moves the cursor": {"name": "\x1b[2Jroot", "examples": 1},
    "a name that is a path": {"name": "../x", "examples": 1},
    "no examples": {"name": "a", "examples": 0},
    "more than there are": {"name": "a", "examples": 10**400},
    "half an example": {"name": "a", "examples": 0.5},
    "a refusal with colours": {"name": "a", "refusal": "\x1b[31m" + "x" * 10_000},
    "no table": ["a"],
}


@pytest.mark.parametrize("kind", FACTS)
def test_who_introduces_itself_badly_is_refused(kind):
    good = make_client_app(lambda offer, context: {"name": "good", "examples": 3}, None)
    bad = _saying(json.dumps(FACTS[kind]))
    roster = Roster(FakeGrid({1: good, 2: bad, 3: _saying("[" * 100_000)}), {"run": "r"})
    roster.poll()
    assert list(roster.members) == ["good"]
    assert len(roster.refused) == 2
    for who, reason in roster.refused:
        assert (who + reason).isprintable() and len(reason) <= 300


def _saying(text):
    from flwr.clientapp import ClientApp

    app = ClientApp()

    @app.query()
    def query(message, context):
        return Message(RecordDict({"facts": ConfigRecord({"json": text})}), reply_to=message)

    return app


def test_what_a_client_said_is_short_and_moves_no_cursor():
    assert told("\x1b[2J\n\u202eabc" + "x" * 1000).isprintable()
    assert len(told("x" * 1000)) == 300
