"""What `fedpace serve` shows: a table on a terminal, lines in a file."""

import re
from dataclasses import replace
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

pytest.importorskip("flwr")

from fedpace.core.plan import Decision, Plan, RoundSeconds, StalenessSeconds
from fedpace.core.record import ParticipantRecord, RoundRecord
from fedpace.deploy.server_view import ServerView
from fedpace.engines.flower.engine import RoundStatus


def person(client, start):
    return ParticipantRecord(
        client=client, sketch_rank=4, weight=1.0, download_bytes=10, upload_bytes=1000,
        start_seconds=start, upload_seconds=0.5, bandwidth_hz=1.0, train_loss=1.0,
        lora_squared_norm=1.0, head_squared_norm=1.0,
    )  # fmt: skip


def record(index, method="adaptive", **changes):
    made = RoundRecord(
        method=method, round=index, clock_seconds=10.0 * (index + 1), round_seconds=2.0,
        participants=(person(0, 1.0), person(2, 1.25)), upload_bits=16000, download_bits=160,
        train_loss=1.0, lora_squared_norm=1.0, head_squared_norm=1.0,
    )  # fmt: skip
    return replace(made, **changes)


PLAN = Plan(
    "exact", np.array(["ann", "ben", "cat"]),
    Decision(np.array([1.0, 0.5, 0.4]), np.array([4, 16, 8])),
    round_seconds=RoundSeconds(2.0, 1.9, 3.5),
)  # fmt: skip
BAD = record(1, participants=(), refusals=((2, "its loss is nan"),), missing=(0, 1))


def played(console):
    view = ServerView(console)
    with view:
        view.names = ("ann", "ben", "cat")
        view.note("listening on 127.0.0.1:8080")
        view.show_plan(PLAN)
        view.show_plan(PLAN)
        view.show_record(record(0, evaluation={"loss": 0.5, "accuracy": 0.75}), 4)
        view.show_record(BAD, 4)
        view.show_status(RoundStatus(2, 3, 1, 1, 0.0, 30.0))
    return console.file.getvalue()


def test_in_a_file_every_line_has_its_round_and_its_clients():
    lines = played(Console(file=StringIO(), width=200)).splitlines()
    assert lines == [
        "listening on 127.0.0.1:8080",
        "plan: 1.9 of 3 clients a round, ranks 4 to 16, 2.00 s a round, 95 % within 3.50 s",
        "adaptive round 1/4  clock 10.0 s  took 2.00 s  overhead –  answered 2/2  "
        "slowest cat  uplink 2.00 kB  loss 0.5000  accuracy 0.7500",
        "round 2: cat refused: its loss is nan",
        "round 2: no answer from ann, ben",
        "adaptive round 2/4  clock 20.0 s  took 2.00 s  overhead –  answered 0/3  "
        "slowest –  uplink 2.00 kB",
    ]


def test_beats_are_shown_with_who_is_late_and_at_work():
    plan = replace(
        PLAN, decision=replace(PLAN.decision, beat_seconds=2.0), round_seconds=None,
        updates_per_second=np.array([0.5, 0.25, 0.1]), staleness_seconds=StalenessSeconds(3.0, 6.0),
    )  # fmt: skip
    people = replace(person(0, 1.0), started_round=1), replace(person(2, 1.0), started_round=2)
    console = Console(file=StringIO(), width=200)
    with ServerView(console) as view:
        view.names = ("ann", "ben", "cat")
        view.show_plan(plan)
        view.show_record(record(2, participants=people, missing=(1,), underway=1), 4)
        view.show_status(RoundStatus(3, 2, 0, 1, 0.0, 1.5, 2))
        state = str(view._state)
    assert console.file.getvalue().splitlines() == [
        "plan: a beat every 2.00 s, 1.7 updates a beat of 3 clients, ranks 4 to 16, "
        "counted 3.00 s after their start",
        "beat 3: no answer from ben",
        "adaptive beat 3/4  clock 30.0 s  took 2.00 s  overhead –  counted 2  late 0.5  at work 1  "
        "uplink 2.00 kB",
    ]
    assert state == "beat 4: 1 updates have come, 2 clients are at work; the next in 1.50 s"


def test_on_a_terminal_the_last_frame_has_rounds_accuracy_plan_and_state():
    console = Console(file=StringIO(), width=100, force_terminal=True, color_system=None)
    text = re.sub(r"\x1b\[[?0-9;]*[A-Za-z]|\r", "", played(console))
    frame = text[text.rindex("adaptive, round 2 of 4") :].splitlines()[1:]
    frame = [line.strip() for line in frame if line.strip()]
    names = [
        "round",
        "clock",
        "took",
        "overhead",
        "answered",
        "slowest",
        "uplink",
        "loss",
        "accuracy",
    ]
    assert frame[0].split() == names
    assert frame[1].endswith("0.5000    0.7500")
    assert frame[2].split()[0] == "2" and frame[2].endswith("2.00 kB")
    assert frame[3].startswith("plan: 1.9 of 3 clients a round")
    assert frame[4].startswith("round 3: 1 of 2 answered, 1 of those chosen are away")


def test_another_method_begins_a_table_of_its_own():
    view = ServerView(Console(file=StringIO(), width=100, force_terminal=True))
    view.show_record(record(3), 4)
    view.show_record(record(0, method="uniform"), 4)
    assert view._table().row_count == 1


def test_draws_with_replacement_count_each_client_once():
    decision = Decision(np.array([0.5, 0.3, 0.2]), np.full(3, 8), draws=2)
    drawn = replace(PLAN, decision=decision, round_seconds=None)
    console = Console(file=StringIO(), width=200)
    ServerView(console).show_plan(drawn)
    expected = sum(1 - (1 - p) ** 2 for p in (0.5, 0.3, 0.2))
    assert console.file.getvalue() == f"plan: {expected:.1f} of 3 clients a round, rank 8\n"
