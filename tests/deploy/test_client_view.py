"""What a client shows of itself, and that it is what happens."""

from io import StringIO

import pytest
from rich.console import Console

from fedpace.deploy.client_view import ClientStatus, ClientView
from fedpace.reporting.units import rate_text

TASK = ClientStatus(
    "training", 2, sketch_rank=4, rank=16, step=3, steps=5, rate_bps=1.2e6, loss=0.4567, accepted=2
)


def drawn(view):
    console = Console(file=StringIO(), width=80, force_terminal=True, color_system=None)
    console.print(view.panel())
    lines = console.file.getvalue().splitlines()
    rows = (line.strip("│ ").split(maxsplit=1) for line in lines[1:-1])
    return lines[0], {row[0]: row[1] for row in rows if len(row) > 1}


def test_on_a_terminal_a_panel_shows_the_round_and_how_far_it_is():
    terminal = Console(file=StringIO(), force_terminal=True, width=80)
    view = ClientView(terminal, "phone", "server.lan:8080")
    view.say("loading model and data")
    title, rows = drawn(view)
    assert "phone at server.lan:8080" in title and [*rows.values()] == ["loading model and data"]
    view.show(TASK)
    _, rows = drawn(view)
    assert "loading model and data" not in rows.values()
    assert rows["round"] == "3" and rows["rank"] == "4 of 16" and rows["loss"] == "0.4567"
    assert rows["doing"].startswith("training") and rows["doing"].endswith("3 of 5 steps")
    assert rows["uplink"] == "1.20 Mbit/s" and rows["accepted"].startswith("2 updates")
    assert terminal.file.getvalue() == ""  # the panel is drawn by the context, not by lines


def test_an_answer_is_on_its_way_for_as_long_as_the_assigned_rate_takes():
    now = [0.0]
    view = ClientView(Console(file=StringIO()), "phone", "server.lan:8080", clock=lambda: now[0])
    view.show(ClientStatus("sending", 0, rate_bps=8e3, upload_bytes=2000))
    assert drawn(view)[1]["doing"] == "sending 2.00 kB"
    now[0] = 1.9
    assert drawn(view)[1]["doing"] == "sending 2.00 kB"
    now[0] = 2.1
    assert drawn(view)[1]["doing"] == "waiting for the server"


def test_in_a_file_there_are_lines_of_what_happened_alone():
    file = StringIO()
    with ClientView(Console(file=file), "phone", "server.lan:8080") as view:
        view.show(TASK)
        view.say("ready with [120] examples")
    [line] = file.getvalue().splitlines()
    assert line.endswith(" phone: ready with [120] examples")


def test_a_rate_has_its_unit():
    assert [rate_text(r) for r in (None, float("inf"), 999.6, 1e6)] == [
        "–", "–", "1.00 kbit/s", "1.00 Mbit/s",
    ]  # fmt: skip


@pytest.mark.torch
@pytest.mark.flower
def test_clients_know_their_round_rank_rate_progress_loss_and_what_was_accepted(tmp_path):
    pytest.importorskip("flwr")
    pytest.importorskip("torch")
    from deploy.in_memory import run_in_memory
    from fedpace.engines.flower.traffic import Traffic

    said, shown, record = run_in_memory(tmp_path, clients=2, rounds=3)
    for name, statuses in shown.items():
        client = int(name.removeprefix("client-"))
        mine = [p for r in record.records for p in r.participants if p.client == client]
        assert len(mine) == 3
        for index, person in enumerate(mine):
            here = [s for s in statuses if s.round_index == index]
            training = [s for s in here if s.state == "training"]
            assert [s.step for s in training] == [0, 1, 2, 2]  # the last one knows the loss
            assert {(s.sketch_rank, s.rank, s.steps) for s in here} == {(person.sketch_rank, 4, 2)}
            assert training[-1].loss == pytest.approx(person.train_loss)
            [sending] = [s for s in here if s.state == "sending"]
            # The record has the requests about the answer too.
            assert sending.upload_bytes + Traffic().message_up == person.upload_bytes
            assert sending.accepted == index
            assert sending.rate_bps is not None and sending.rate_bps > 0
        assert said[name][0] == "loading model and data"
        assert said[name][1].startswith("60 examples of 6 tokens in the median")
        assert said[name][2] == "ready with 60 examples"


def test_what_flower_said_last_is_shown_without_its_colours(tmp_path):
    from fedpace.deploy.client import _why

    log = tmp_path / "node.log"
    assert _why(log) == "it did not say why"
    log.write_text("\x1b[91mERROR\x1b[0m:  \x1b[93mtimed out\x1b[0m\n\x1b[92mINFO\x1b[0m: bye\n")
    assert _why(log) == "ERROR:  timed out"
