"""Whoever takes no part is told why, on both sides, and ends where waiting is no use."""

from contextlib import suppress
from dataclasses import replace
from io import StringIO

import numpy as np
import pytest

pytest.importorskip("flwr")
pytest.importorskip("torch")

from rich.console import Console

from deploy.in_memory import run_in_memory
from engines.fake_grid import FakeGrid
from fedpace.core.messages import ClientTask
from fedpace.deploy.client_work import Client, Own
from fedpace.engines.flower.client import make_client_app
from fedpace.engines.flower.roster import TAKEN_PATIENCE_SECONDS, Roster

pytestmark = [pytest.mark.long, pytest.mark.slow, pytest.mark.torch, pytest.mark.flower]


def person(name, examples=5):
    """A client in a test's hands, that has its model already."""
    said = []
    client = Client(Own(name, None, (0, 1)), said.append)
    facts = {"name": name, "examples": examples}
    introduce = client.introduce

    def answer(offer, context):
        return introduce(offer, context) if "refused" in offer or "over" in offer else facts

    return client, said, make_client_app(answer, client.work)


@pytest.fixture
def clock():
    class Clock:
        now = 0.0

        def __call__(self):
            return self.now

    return Clock()


def seen(roster, rounds=2):
    """Everyone online answers what it was asked: a client is pulled from to be heard."""
    for _ in range(rounds):
        roster.poll()
        roster.grid.pull_messages(list(roster.grid.waiting))


def test_a_name_that_is_taken_is_waited_for_and_then_given_up(clock):
    people = {n: person("a") for n in (1, 2)}
    grid = FakeGrid({1: people[1][2]})
    roster = Roster(grid, {"run": "r"}, clock=clock)
    seen(roster)
    grid.apps[2] = people[2][2]
    end = TAKEN_PATIENCE_SECONDS + 30
    while clock.now < end and people[2][0].refusal is None:
        clock.now += 2.0
        seen(roster)
    assert clock.now > TAKEN_PATIENCE_SECONDS
    assert roster.refused == [("a", "a client of that name is there already")]
    assert "another client takes part as a; join under another --name; waiting" in people[2][1][0]
    assert "join under another --name" in people[2][0].refusal
    assert people[1][0].refusal is None and roster.members["a"].node == 1


def test_whose_name_comes_free_takes_its_place(clock):
    people = {n: person("a") for n in (1, 2)}
    grid = FakeGrid({1: people[1][2]})
    roster = Roster(grid, {"run": "r"}, clock=clock)
    seen(roster)
    grid.apps[2] = people[2][2]
    seen(roster)
    del grid.apps[1]  # the server noticed that it is gone
    for _ in range(5):
        clock.now += 2.0
        seen(roster)
    assert roster.members["a"].node == 2 and people[2][0].refusal is None


@pytest.mark.parametrize("claim", [True, -3, 0, 10**13, 1.5, "7", None])
def test_a_claim_that_is_none_is_refused_at_once_on_both_sides(claim, clock):
    client, _, app = person("liar", claim)
    roster = Roster(FakeGrid({1: app, 2: person("honest")[2]}), {"run": "r"}, clock=clock)
    seen(roster)
    [(_, reason)] = roster.refused
    assert "'liar' says it has" in reason and "not 1 to 10^12" in reason
    assert client.refusal == reason
    assert list(roster.members) == ["honest"]


def test_who_comes_back_with_other_data_is_refused_and_nobody_else(clock):
    other, _, app = person("a", 6)
    roster = Roster(FakeGrid({1: app, 2: person("b", 5)[2]}), {"run": "r"}, clock=clock)
    roster.expected |= {"a": 5, "b": 5}
    seen(roster)
    assert list(roster.members) == ["b"]
    assert other.refusal == (
        "a had 5 examples when it entered this run, now 6; start it with the data that it had"
    )
    assert roster.refused == [("a", other.refusal)]


def test_an_update_that_is_refused_is_told_to_its_client_and_an_exclusion_ends_it(tmp_path):
    output = Console(file=StringIO(), width=200)
    nan = {3: lambda u: replace(u, delta={n: v * np.float32(np.nan) for n, v in u.delta.items()})}
    said, _, record = run_in_memory(tmp_path, clients=4, rounds=5, spoil=nan, console=output)
    assert [r.excluded for r in record.records] == [(), (), (3,), (), ()]
    assert sum("the server refused this client's last update" in t for t in said["client-3"]) == 2
    assert not any("refused" in t for t in said["client-0"])
    shown = output.file.getvalue()
    assert "client-3 is excluded from the run" in shown and "not finite" in shown
    weights = [sum(p.weight for p in r.participants) for r in record.records]
    assert weights[3:] == pytest.approx([1.0, 1.0])


def test_an_exception_in_training_is_in_the_record_with_its_kind(tmp_path):
    def fail(update):
        raise MemoryError("of a text: secret")

    output = Console(file=StringIO(), width=200)
    _, _, record = run_in_memory(tmp_path, clients=3, rounds=2, spoil={1: fail}, console=output)
    for found in record.records:
        assert [c for c, _ in found.failed] == [1] and found.missing == (1,)
        assert "MemoryError" in found.failed[0][1] and "secret" not in found.failed[0][1]
    assert "round 1: client-1 failed: " in output.file.getvalue()
    assert "no answer from" not in output.file.getvalue()


def test_a_client_whose_training_fails_again_and_again_gives_up():
    client, said, _ = person("a")

    def fail(tasks):
        raise MemoryError("too large")

    def once(train):
        return client._trained(train, [ClientTask(0, 4, {}, 1, 0)])

    for train in (fail, fail, lambda tasks: [], fail, fail):
        with suppress(MemoryError):
            once(train)
        assert client.refusal is None
    with pytest.raises(MemoryError):
        once(fail)
    assert "training failed in 3 rounds one after another" in client.refusal
    assert said[0] == "round 5: training failed: MemoryError: too large"
