"""Clients that enter a run which has begun, on the virtual clock: exact, to the bit."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")

from fedpace.core.profile import Clients
from fedpace.engines.simulated import SimulatedEngine
from fedpace.experiment.run import resume, run
from fedpace.experiment.site import Site
from fedpace.reporting.report import write_report
from fedpace.run_folder.checkpoint import read_checkpoint
from fedpace.run_folder.reader import read_records, read_run
from fedpace.wireless.clients_file import read_clients
from toy_work import toy_experiment, toy_network, toy_work

pytestmark = pytest.mark.torch
N, ENTER = 6, 6
WEIGHT = np.array([3.0, 1, 2, 2, 5, 4])
EXPERIMENT = toy_experiment(
    methods=["statistics", "full"],
    training={"server_memory": 0.5, "rounds": 15},
    network={"fading": True, "bandwidth_hz": 3e3},
    planner={"replan_every": 4},
    lora={"upload_dtype": "int8"},
)
ALL = toy_network(EXPERIMENT, WEIGHT)


def first(count):
    columns = ALL.clients.take(range(count)).columns()
    return replace(ALL, clients=Clients.from_columns(**columns))


def place(folder, begin=N, enter=None):
    """A site of `begin` clients where all six are there from a round of the first method on."""

    def site(experiment):
        known = read_clients(folder / "clients.csv") if (folder / "clients.csv").exists() else None
        work = toy_work(first(begin if known is None else len(known)))

        def newcomers(work):
            path = folder / "rounds.jsonl"
            if enter is None or len(read_records(folder) if path.exists() else []) < enter:
                return work
            return replace(work, network=ALL)

        def make_engine(setup, now, renewal):
            return SimulatedEngine(setup.train, setup.network, setup.exchange, seed=experiment.seed,
                                   now=now)  # fmt: skip

        return Site(work, make_engine, learn_availability=True, newcomers=newcomers)

    return site


def played(folder, experiment=EXPERIMENT, **how):
    return run(experiment, out=folder, site=place(folder, **how))


def plain(records, entered=()):
    return [replace(record, entered=entered).to_json() for record in records]


def states(folder):
    return {m: read_checkpoint(folder, m) for m in EXPERIMENT.methods}


def same_state(one, two):
    for method, a in states(one).items():
        b = states(two)[method]
        assert {**a.state, "plans": None} == {**b.state, "plans": None}
        for part in ("adapter", "optimizer", "memory"):
            x, y = getattr(a, part), getattr(b, part)
            assert x.keys() == y.keys()
            assert all(np.array_equal(x[name], y[name]) for name in x)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run that had all six from the start."""
    return played(tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """One that someone enters before the seventh round, never interrupted."""
    return played(tmp_path_factory.mktemp("expected") / "run", begin=N - 1, enter=ENTER)


def test_who_enters_before_the_first_round_gives_the_run_that_had_it_from_the_start(
    whole, tmp_path
):
    late = played(tmp_path / "late", begin=N - 2, enter=0)
    assert plain(late.records) == plain(whole.records)
    assert late.summary["methods"] == whole.summary["methods"]
    same_state(late.folder, whole.folder)
    for name in ("clients.csv", "estimates.csv"):
        assert (late.folder / name).read_text() == (whole.folder / name).read_text()
    assert [r.entered for r in late.records if r.round == 0] == [(4, 5), ()]


def test_until_someone_enters_the_run_is_the_one_without_and_then_everyone_is_in_it(
    expected, tmp_path
):
    without = played(tmp_path / "without", begin=N - 1)
    assert plain(expected.records[:ENTER]) == plain(without.records[:ENTER])
    assert [r.round for r in expected.records if r.entered] == [ENTER]
    after = [r for r in expected.records if r.method == "statistics"][ENTER:]
    assert any(p.client == N - 1 for r in after for p in r.participants)
    # The other method began with all of them.
    assert any(p.client == N - 1 for r in expected.records[15:] for p in r.participants)
    # Of the known clients, what had been seen is still there, and counted on.
    state = states(expected.folder)["statistics"].state["renewal"]
    asked = np.zeros(N, int)
    for record in expected.records[:15]:
        asked[[p.client for p in record.participants]] += 1
    assert state["invited"] == asked.tolist()
    assert state["start"]["observations"] == asked.tolist()


def test_the_plan_for_all_follows_what_was_seen_where_the_run_renews_its_plan(expected):
    """How many are asked follows the noise that was measured."""
    from fedpace.experiment.methods import make_plan

    rows = states(expected.folder)["statistics"].state["plans"]
    [plan] = [made for at, made in rows if at == ENTER]
    unseen = make_plan(EXPERIMENT, ALL, "statistics").sampling_probability
    planned = np.array(plan["sampling_probability"])
    assert plan["client_id"] == ALL.clients.client_id.tolist()
    assert not np.allclose(planned, unseen, rtol=0.01)


def test_all_data_weights_are_those_of_the_new_population_from_that_round_on(tmp_path):
    experiment = EXPERIMENT.model_copy(update={"methods": ["full"]})
    late = played(tmp_path / "late", experiment, begin=4, enter=2)
    for record in late.records:
        count = 4 if record.round < 2 else N
        weights = [p.weight for p in record.participants]
        np.testing.assert_allclose(weights, WEIGHT[:count] / WEIGHT[:count].sum())
        assert sum(weights) == pytest.approx(1.0)


@pytest.mark.slow
@pytest.mark.parametrize("stop_after", [6, 7, 17])
def test_a_run_that_is_stopped_around_the_entrance_resumes_to_the_same_bits(
    stop_after, expected, tmp_path
):
    """Checkpoints every four rounds; someone enters before the seventh."""

    class Stop(Exception):
        pass

    experiment = EXPERIMENT.model_copy(
        update={"output": EXPERIMENT.output.model_copy(update={"checkpoint_every": 4})}
    )
    seen, folder = [], tmp_path / "stopped"

    def show(record, rounds):
        seen.append(record)
        if len(seen) == stop_after:
            raise Stop

    site = place(folder, begin=N - 1, enter=ENTER)
    with pytest.raises(Stop):
        run(experiment, out=folder, show=show, site=site)
    done = resume(folder, site=site)
    assert [r.to_json() for r in done.records] == [r.to_json() for r in expected.records]
    same_state(folder, expected.folder)
    for name in ("clients.csv", "estimates.csv", "plan.json"):
        assert (folder / name).read_text() == (expected.folder / name).read_text()


@pytest.mark.slow
def test_a_run_killed_between_its_checkpoint_and_the_list_of_clients_loses_nothing(
    expected, tmp_path, monkeypatch
):
    """The checkpoint before the entrance is there, the newcomer not yet in clients.csv."""
    from fedpace.experiment import run as runs

    written, folder = [], tmp_path / "stopped"
    true = runs.write_clients

    def write(clients, path):
        if path.name == "clients.csv":
            written.append(len(clients))
        if written == [N - 1, N]:
            raise KeyboardInterrupt
        true(clients, path)

    site = place(folder, begin=N - 1, enter=ENTER)
    monkeypatch.setattr(runs, "write_clients", write)
    with pytest.raises(KeyboardInterrupt):
        run(EXPERIMENT, out=folder, site=site)
    monkeypatch.undo()
    assert len(read_clients(folder / "clients.csv")) == N - 1
    done = resume(folder, site=site)
    assert [r.to_json() for r in done.records] == [r.to_json() for r in expected.records]
    same_state(folder, expected.folder)


@pytest.mark.slow
def test_the_report_reads_a_run_that_someone_entered(expected, tmp_path):
    pytest.importorskip("jinja2")
    later = played(tmp_path / "later", begin=N - 1, enter=20)
    for folder, method, index in ((expected.folder, "statistics", 7), (later.folder, "full", 6)):
        found = read_run(folder)
        sizes = [len(plan) for _, plan in found.plans[method]]
        assert sizes[0] == N - 1 and sizes[-1] == N
        assert f"Clients entered while {method} ran: 5 in round {index}." in found.notes
        assert "Clients entered while" in write_report(folder).read_text()
    assert [len(plan) for _, plan in found.plans["statistics"]][-1] == N - 1
