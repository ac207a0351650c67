"""Clients that enter a run over Flower which has begun: real clients, on a grid in memory."""

import json
from io import StringIO

import numpy as np
import pytest

pytest.importorskip("flwr")
pytest.importorskip("torch")

from rich.console import Console

from engines.fake_grid import FakeGrid
from fedpace.core.errors import InputError
from fedpace.deploy import server
from fedpace.deploy.client_work import Client, Own
from fedpace.deploy.server import conduct
from fedpace.deploy.server_view import ServerView
from fedpace.deploy.waiting import Waiting
from fedpace.engines.flower.client import make_client_app
from fedpace.engines.flower.roster import Roster
from fedpace.engines.flower.traffic import Traffic
from fedpace.experiment.config import load_experiment
from fedpace.reporting.report import write_report
from fedpace.run_folder.checkpoint import read_checkpoint
from fedpace.run_folder.reader import read_records
from fedpace.wireless.clients_file import read_clients
from tiny import EXPERIMENT, write_examples, write_experiment

pytestmark = [pytest.mark.flower, pytest.mark.torch]
NAMES = ("a", "b", "c", "d")
EXAMPLES = {"a": 12, "b": 20, "c": 31, "d": 40}


class Watched(ServerView):
    """Has something happen after a round."""

    def __init__(self):
        self.output, self.after = StringIO(), {}
        super().__init__(Console(file=self.output, width=200))

    def show_record(self, record, rounds):
        super().show_record(record, rounds)
        self.after.pop(record.round, lambda: None)()


class Place:
    """An experiment for three clients, "a" to "c", and clients by name."""

    def __init__(self, folder):
        text = EXPERIMENT.replace("clients = 6", "clients = 3")
        text = text.replace("replan_every = 3", "cohort = 0.6")
        text = text.replace('"adaptive", "uniform"', '"uniform"')
        text = text.replace("eval_every = 2", "eval_every = 100")
        self.folder, self.path = folder, write_experiment(folder, text)
        for i, (name, count) in enumerate(EXAMPLES.items()):
            write_examples(folder / f"{name}.jsonl", count, seed=10 + i)

    def experiment(self, *overrides):
        return load_experiment(self.path, list(overrides))

    def client(self, who, **claims):
        """The app of a client, and the client; it may claim other facts than are true."""
        client = Client(Own(who, self.folder / f"{who}.jsonl"), lambda text: None)

        def introduce(offer, context):
            return {**client.introduce(offer, context), **claims}

        return make_client_app(introduce, client.work), client

    def grid(self, *names):
        return FakeGrid({10 + NAMES.index(name): self.client(name)[0] for name in names})

    def conduct(self, grid, view=None, overrides=(), closed=False, seconds=5.0, **where):
        waiting = Waiting(3, seconds, 5.0, closed)
        # Flower's requests would outweigh the small messages of these tests, in the plan too.
        blocks_alone = Traffic(0, 0)
        return conduct(
            grid, self.experiment(*overrides), waiting, view or Watched(), traffic=blocks_alone,
            **where,
        )  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return Place(tmp_path_factory.mktemp("place"))


def entering(place, **claims):
    """A grid of three, and a view with which a fourth client comes after a round."""
    grid, view = place.grid("a", "b", "c"), Watched()
    app, made = place.client("d", **claims)
    view.after[1] = lambda: grid.apps.update({13: app})
    return grid, view, made


def adapter(folder):
    return read_checkpoint(folder, "uniform").adapter


def what_was_done(records):
    """All that does not depend on how fast this machine is."""
    return [
        [(p.client, p.sketch_rank, p.weight, p.train_loss, p.lora_squared_norm, p.upload_bytes)
         for p in r.participants]
        for r in records
    ]  # fmt: skip


@pytest.fixture(scope="module")
def entered(place):
    """A run that "d" enters: it is there after the second round, so asked in the third."""
    grid, view, _ = entering(place)
    record = place.conduct(grid, view, out=place.folder / "entered")
    return record, view


def test_a_newcomer_is_asked_trains_and_is_in_the_run_folder(entered):
    record, view = entered
    assert [r.round for r in record.records if r.entered == (3,)] == [3]
    assert any(p.client == 3 for r in record.records[3:] for p in r.participants)
    assert "d entered the run; 4 clients from now on" in view.output.getvalue()
    clients, estimates = (
        read_clients(record.folder / f"{n}.csv") for n in ("clients", "estimates")
    )
    total = sum(EXAMPLES.values())
    for found in (clients, estimates):
        assert found.client_id.tolist() == list(NAMES)
        np.testing.assert_allclose(found.data_weight, [EXAMPLES[n] / total for n in NAMES])
    # Nothing is known of its device: the typical one.
    assert clients.step_seconds[3] == np.median(clients.step_seconds[:3])
    [renewal] = json.loads((record.folder / "plan.json").read_text())["methods"]["uniform"][
        "renewals"
    ]
    assert renewal["round"] == 3 and renewal["plan"]["client_id"] == list(NAMES)
    pytest.importorskip("jinja2")
    assert "d in round 4" in write_report(record.folder).read_text()


def test_who_enters_before_the_first_round_gives_the_run_that_had_it_from_the_start(
    place, monkeypatch
):
    begin, grid = Roster.begin, place.grid("a", "b", "c")

    def begin_and_meet(roster, names=None):
        begin(roster, names)
        grid.apps[13] = place.client("d")[0]
        roster.poll()

    monkeypatch.setattr(Roster, "begin", begin_and_meet)
    late = place.conduct(grid, out=place.folder / "late")
    monkeypatch.undo()
    # The other run is told of the same devices: a newcomer's are not drawn.
    clients = f"network.clients={late.folder / 'clients.csv'}"
    whole = place.conduct(
        place.grid(*NAMES), overrides=["data.clients=4", clients], out=place.folder / "whole"
    )
    assert late.records[0].entered == (3,) and not whole.records[0].entered
    assert what_was_done(late.records) == what_was_done(whole.records)
    one, two = adapter(late.folder), adapter(whole.folder)
    assert all(np.array_equal(one[name], two[name]) for name in one)
    assert (late.folder / "clients.csv").read_text() == (whole.folder / "clients.csv").read_text()


@pytest.mark.parametrize("stop_after", [3, 5])
def test_a_run_that_is_killed_after_someone_entered_resumes_to_the_same_result(
    stop_after, place, entered, tmp_path
):
    """Checkpoints every four rounds: the one of the entrance is not due."""

    def die():
        raise KeyboardInterrupt

    grid, view, _ = entering(place)
    view.after[stop_after] = die
    overrides = ["output.checkpoint_every=4"]
    with pytest.raises(KeyboardInterrupt):
        place.conduct(grid, view, overrides, out=tmp_path / "run")
    done = place.conduct(place.grid(*NAMES), overrides=overrides, resumed=tmp_path / "run")
    expected, _ = entered
    assert what_was_done(done.records) == what_was_done(expected.records)
    assert [r.entered for r in done.records] == [r.entered for r in expected.records]
    one, two = adapter(done.folder), adapter(expected.folder)
    assert all(np.array_equal(one[name], two[name]) for name in one)


def test_who_comes_back_with_other_data_is_named(place, entered, tmp_path):
    import shutil

    folder = shutil.copytree(entered[0].folder, tmp_path / "run")
    grid = place.grid("a", "b", "c")
    grid.apps[13] = place.client("d", examples=41)[0]
    with pytest.raises(InputError, match="client 'd' had a share of 0.3883 of all examples"):
        place.conduct(grid, resumed=folder)


def test_a_closed_run_turns_newcomers_away_at_both_ends_also_one_that_does_not_listen(place):
    grid, view, late = entering(place)
    deaf = make_client_app(lambda offer, context: {"name": "deaf", "examples": 3}, None)
    view.after[2] = lambda: grid.apps.update({14: deaf})
    record = place.conduct(grid, view, closed=True, out=place.folder / "closed")
    assert "the run began without 'd' and takes no more clients" in late.refusal
    said = view.output.getvalue()
    assert "refused d: the run began without 'd'" in said
    assert "refused deaf: the run takes no more clients" in said
    assert read_clients(record.folder / "clients.csv").client_id.tolist() == ["a", "b", "c"]
    assert not any(r.entered for r in record.records)


def test_a_newcomer_that_claims_very_many_examples_gets_no_more_than_half_of_the_weight(place):
    grid, view, _ = entering(place, examples=10**9)
    record = place.conduct(grid, view, out=place.folder / "boasting")
    believed = np.array([12, 20, 31, 63])
    weight = read_clients(record.folder / "clients.csv").data_weight
    np.testing.assert_allclose(weight, believed / believed.sum())
    assert "says it has 1000000000 examples; it counts as 63" in view.output.getvalue()
    people = [p for r in record.records[3:] for p in r.participants if p.client == 3]
    plan = json.loads((record.folder / "plan.json").read_text())["methods"]["uniform"]
    q = plan["renewals"][0]["plan"]["sampling_probability"][3]
    assert people[0].weight == pytest.approx(0.5 / q)


def test_a_newcomer_is_whom_its_key_was_given_to_and_takes_nobodys_name(place):
    grid, view, _ = entering(place, name="a")
    grid.key_names = {13: "tablet"}
    view.after[2] = lambda: grid.apps.update({14: place.client("d", name="b")[0]})
    record = place.conduct(grid, view, out=place.folder / "named")
    names = read_clients(record.folder / "clients.csv").client_id.tolist()
    assert names == ["a", "b", "c", "tablet"]
    assert "refused b: a client of that name is there already" in view.output.getvalue()


def test_a_run_that_has_no_room_for_another_ones_memory_goes_on_without_it(place, monkeypatch):
    monkeypatch.setattr(server, "room_for", lambda experiment, layout: 4)
    grid, view, first = entering(place)
    second = place.client("a")[1]
    second.own = Own("z", place.folder / "a.jsonl")
    app = make_client_app(second.introduce, second.work)
    asked = view.after[1]
    view.after[1] = lambda: (asked(), grid.apps.update({14: app}))
    record = place.conduct(grid, view, ["training.server_memory=0.5"], out=place.folder / "narrow")
    names = read_clients(record.folder / "clients.csv").client_id.tolist()
    assert names == ["a", "b", "c", "d"]
    assert first.refusal is None
    assert "takes no more clients" in second.refusal
    assert read_records(record.folder)[-1].round == 5


def test_a_run_goes_on_without_those_who_do_not_come_back_and_still_counts_their_data(
    place, tmp_path
):
    """Two of four come back after the server was killed; a fifth enters, then a third returns."""

    def die():
        raise KeyboardInterrupt

    grid, view, _ = entering(place)
    view.after[3] = die
    more = ["training.rounds=12", 'methods=["uniform"]', "planner.cohort=1.0"]
    with pytest.raises(KeyboardInterrupt):
        place.conduct(grid, view, more, out=tmp_path / "run")

    grid, view = place.grid("a", "c"), Watched()
    new, known = place.client("a", name="new", examples=27)[0], place.client("d")[0]
    view.after[4] = lambda: grid.apps.update({20: new})
    view.after[8] = lambda: grid.apps.update({21: known})
    done = place.conduct(grid, view, more, seconds=0.2, resumed=tmp_path / "run")
    assert "going on without b, d; they may still come back" in view.output.getvalue()
    assert [r.entered for r in done.records if r.entered] == [(3,), (4,)]
    for record in done.records[4:]:
        assert {1, 3} & set(record.missing) == ({1, 3} if record.round < 9 else {1})
    clients = read_clients(tmp_path / "run" / "clients.csv")
    assert clients.client_id.tolist() == [*NAMES, "new"]
    examples = np.array([12, 20, 31, 40, 27])
    np.testing.assert_allclose(clients.data_weight, examples / examples.sum())
