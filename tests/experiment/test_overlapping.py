"""Whole runs without waiting: what they refuse, and that they resume to the same bits."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")

from federation.toy import random_adapter, towards
from fedpace.core.errors import InputError
from fedpace.core.profile import Clients
from fedpace.engines.overlapping import OverlappingSimulation
from fedpace.engines.simulated import SimulatedEngine
from fedpace.experiment.build import check
from fedpace.experiment.config import Scenario
from fedpace.experiment.methods import beats_would_be_guessed, make_plan
from fedpace.experiment.prepare import prepare
from fedpace.experiment.run import resume, run
from fedpace.experiment.scenario import plan_scenario
from fedpace.experiment.schedule import as_begun, last_step
from fedpace.experiment.server_rate import schedule_factor
from fedpace.experiment.site import Site
from fedpace.run_folder.checkpoint import read_checkpoint
from fedpace.run_folder.reader import read_run
from toy_work import toy_experiment, toy_network, toy_work

pytestmark = pytest.mark.torch
WEIGHT = np.array([3.0, 1, 2, 2, 5, 4])
LATE = {"schedule": "overlapping", "beat_seconds": 0.4, "rounds": 12}
BAND = "work-conserving"
METHODS = ["uniform", "fedasync", "fedbuff", "ca2fl", "fadas"]


def experiment(**training):
    return toy_experiment(
        methods=METHODS,
        training={**LATE, "buffer_size": 2, "server_optimizer": "adam", **training},
        network={"fading": True, "bandwidth_hz": 3e3, "allocation": BAND},
        planner={"cohort": 0.5},
        lora={"upload_dtype": "int8"},
    )


def place(engine=OverlappingSimulation, stop_after=None, weight=WEIGHT, train=None):
    """A site whose trainer breaks down after so many calls, as if the process were killed."""

    def site(experiment):
        network = toy_network(experiment, weight)
        calls = []

        def make_engine(setup, now, renewal):
            def counted(tasks):
                calls.append(len(tasks))
                if stop_after is not None and len(calls) > stop_after:
                    raise KeyboardInterrupt
                return setup.train(tasks)

            return engine(counted, setup.network, setup.exchange, seed=experiment.seed, now=now)

        return Site(toy_work(network, train), make_engine)

    return site


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return run(experiment(), out=tmp_path_factory.mktemp("runs") / "whole", site=place())


@pytest.mark.parametrize(
    "stop_after",
    [pytest.param(3, marks=pytest.mark.slow), 25, pytest.param(45, marks=pytest.mark.slow)],
)
def test_a_run_killed_at_any_moment_resumes_to_the_same_bits(tmp_path, whole, stop_after):
    with pytest.raises(KeyboardInterrupt):
        run(experiment(), out=tmp_path / "cut", site=place(stop_after=stop_after))
    cut = resume(tmp_path / "cut", site=place())
    assert [r.to_json() for r in cut.records] == [r.to_json() for r in whole.records]
    for method in METHODS:
        a, b = (read_checkpoint(done.folder, method) for done in (whole, cut))
        assert a.state == b.state
        parts = [(c.adapter, c.optimizer, c.memory, c.more["underway"]) for c in (a, b)]
        for x, y in zip(*parts, strict=True):
            assert x.keys() == y.keys()
            assert all(np.array_equal(x[name], y[name]) for name in x)
    late = [r.round - p.started_round for r in whole.records for p in r.participants]
    assert max(late) >= 2
    underway = read_checkpoint(whole.folder, "uniform").state["underway"]
    predicted = [s["predicted_round_seconds"] for s in whole.summary["methods"].values()]
    assert predicted == [None] * 5, "what is predicted is of rounds that wait"
    assert underway, "nothing underway at the end would prove nothing"
    assert json.dumps(underway)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": ["fedit"]}, "'fedit' has to wait for all"),
        ({"methods": ["infocom22"]}, "'infocom22' has to wait for all"),
        ({"training": {"server_memory": 0.5}}, "with server_memory = 0.5 has to wait"),
        ({"training": {"beat_seconds": 0.1}}, r"beat_seconds = 0.1 is below .* overhead_seconds"),
        ({"planner": {"replan_every": 3}}, "replan_every = 3"),
        ({"planner": {"replan_every": 3}, "training": {"beat_seconds": None}}, "replan_every = 3"),
        ({"training": {"schedule": "synchronous"}}, "beat_seconds = 0.4: synchronous rounds have"),
        (
            {
                "training": {"schedule": "synchronous", "beat_seconds": None},
                "planner": {"max_bias": 0.1},
            },
            "max_bias = 0.1: only rounds that overlap",
        ),
        ({"planner": {"max_bias": 0.1}}, "max_bias = 0.1: only the planner 'exact'"),
        (
            {
                "training": {
                    "schedule": "synchronous",
                    "beat_seconds": None,
                    "beat_rate_factor": 0.5,
                }
            },
            "beat_rate_factor = 0.5: synchronous rounds have no beat",
        ),
        ({"network": {"allocation": "equal-finish"}}, "'equal-finish' divides the band"),
        ({"training": {"beat_seconds": None}}, "needs beat_seconds for 'uniform'"),
        ({"training": {"beat_seconds": 1e4}}, "one beat would last longer than a run of 12 rounds"),
        (
            {"training": {"beat_seconds": 0.2, "rounds": 1}},
            "over before the first update can arrive",
        ),
    ],
)
def test_what_cannot_overlap_is_refused_in_one_line(tmp_path, changes, message):
    base = {"methods": ["uniform"], "training": LATE, "network": {"allocation": BAND}}
    merged = {**base, **changes, "training": {**LATE, **changes.get("training", {})}}
    if merged["training"]["beat_seconds"] is None:
        del merged["training"]["beat_seconds"]
    with pytest.raises(InputError, match=message) as error:
        run(toy_experiment(**merged), out=tmp_path / "no", site=place())
    assert "\n" not in str(error.value)
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"planner": {"replan_every": 3, "name": "uniform"}}, "replan_every = 3"),
        ({"training": {"server_memory": 0.5}}, "with server_memory = 0.5 has to wait"),
        ({"privacy": {"clip_norm": 1.0, "noise_multiplier": 1.0, "delta": 1e-3}}, "busy client"),
        (
            {
                "training": {"schedule": "auto"},
                "lora": {"upload_dtype": "int8"},
                "privacy": {"clip_norm": 1.0, "noise_multiplier": 1.0, "delta": 1e-3},
            },
            "upload_dtype = 'int8'",
        ),
        ({"planner": {"name": "infocom22"}}, "'infocom22' has to wait for all"),
        ({"planner": {"name": "uniform"}, "training": {"beat_seconds": None}}, "for 'uniform'"),
        ({"training": {"schedule": "synchronous"}}, "synchronous rounds have no beat"),
        ({"training": {"beat_seconds": 1e4}}, "one beat would last longer than a run of 12 rounds"),
    ],
)
def test_a_plan_alone_is_refused_for_what_its_run_would_be(changes, message):
    training = {**LATE, **changes.get("training", {})}
    asked = toy_experiment(**{"network": {"allocation": BAND}, **changes, "training": training})
    with pytest.raises(InputError, match=message):
        plan_scenario(Scenario(**asked.model_dump()), toy_network(asked, np.ones(4)))


def test_who_draws_its_cohort_is_refused_before_anything_is_loaded():
    asked = toy_experiment(methods=["infocom22"], training=LATE, network={"allocation": BAND})
    with pytest.raises(InputError, match="'infocom22' has to wait for all"):
        check(asked)


def test_a_plan_alone_is_that_of_its_run(tmp_path):
    asked = toy_experiment(
        methods=["adaptive"], training=LATE, network={"allocation": BAND},
        planner={"name": "uniform"},
    )  # fmt: skip
    network = toy_network(asked, np.array([1.0, 2.0, 3.0, 4.0]))
    alone = plan_scenario(Scenario(**asked.model_dump()), network)
    run_of_it = make_plan(asked, network, "adaptive")
    assert (alone.schedule, alone.beat_seconds) == ("overlapping", 0.4)
    assert alone.to_json() == run_of_it.to_json()


def test_a_cohort_for_the_other_methods_does_not_hinder_a_plan_alone():
    asked = Scenario(methods=["adaptive", "uniform"], planner={"cohort": 0.5})
    assert plan_scenario(asked, toy_network(asked, np.ones(4))).planner == "exact"
    with pytest.raises(InputError, match="cohort = 0.5"):
        nobody_else = Scenario(planner={"cohort": 0.5})
        plan_scenario(nobody_else, toy_network(nobody_else, np.ones(4)))


def test_rounds_mean_the_same_work_whichever_schedule_is_chosen(tmp_path):
    def done(schedule):
        asked = toy_experiment(
            methods=["adaptive"],
            training={"schedule": schedule, "rounds": 60, "eval_every": 20},
            network={"allocation": BAND, "step_spread": 2.0},
        )
        done = run(asked, out=tmp_path / schedule, site=place(weight=np.ones(18)))
        return done.records, read_run(done.folder).plans["adaptive"][0][1]

    (waited, rounds), (beats, overlapping) = map(done, ("synchronous", "auto"))
    assert overlapping.schedule == "overlapping" and len(waited) == 60
    # So many rounds' worth of progress, each step being 1 / relative_rounds of the way.
    worth = 60 * overlapping.relative_rounds / rounds.relative_rounds
    assert worth > 70 and len(beats) == np.ceil(worth)
    evaluated = [r.round + 1 for r in beats if r.evaluation is not None]
    assert evaluated == [np.ceil(worth / 3), np.ceil(2 * worth / 3), len(beats)]
    # Who asks for beats by name counts beats.
    assert last_step(toy_experiment(training=LATE), overlapping) == 12


@pytest.mark.slow
def test_a_run_that_ends_before_slow_clients_are_heard_waits_for_them():
    def made(rounds):
        asked = toy_experiment(
            methods=["adaptive"], training={"rounds": rounds},
            network={"allocation": BAND, "step_spread": 2.0},
        )  # fmt: skip
        return make_plan(asked, toy_network(asked, np.ones(18)), "adaptive")

    soon, late = made(2), made(200)
    assert late.schedule == "overlapping" and "ends too soon" not in late.verdict
    steps = np.ceil(2 * late.statistics["beats_per_round"])
    assert steps * late.beat_seconds < 5 * late.staleness_seconds.p95
    assert soon.schedule == "synchronous" and "the run ends too soon" in soon.verdict


GIVEN = {"beat_seconds": 0.4}, {"beat_rate_factor": 0.7}, {"max_bias": 0.1}
SOON = "; rounds wait, as the run ends too soon for rounds that overlap"


@pytest.mark.parametrize(
    ("given", "soon", "waiting"),
    [
        (GIVEN[:0], "", ""),
        (GIVEN[:1], ", so beat_seconds is not used", "; rounds wait, so beat_seconds is not used"),
        (
            GIVEN[1:2],
            ", so beat_rate_factor is not used",
            "; rounds wait, so beat_rate_factor is not used",
        ),
        (
            GIVEN,
            ", so beat_seconds, beat_rate_factor and max_bias are not used",
            "; rounds wait, so beat_seconds and max_bias are not used, nor is beat_rate_factor",
        ),
    ],
)
def test_where_rounds_wait_the_plan_names_all_that_is_not_used(given, soon, waiting):
    training = {key: each[key] for each in given for key in each if key != "max_bias"}
    planner = {key: each[key] for each in given for key in each if key == "max_bias"}

    def made(rounds, spread, **network):
        asked = toy_experiment(
            methods=["adaptive"], training={"rounds": rounds, **training}, planner=planner,
            network={"allocation": BAND, "step_spread": spread, **network},
        )  # fmt: skip
        return make_plan(asked, toy_network(asked, np.ones(18)), "adaptive")

    assert made(2, 2.0).verdict.endswith(SOON + soon)
    alike = made(200, 0.0, shadowing_db=0.0, upload_compute_ratio=0.01)  # nobody is waited for
    assert alike.schedule == "synchronous"
    assert alike.verdict.removeprefix("converged") == waiting
    assert "not used" not in made(200, 2.0).verdict


@pytest.mark.parametrize(
    "more",
    [
        {"methods": ["uniform", "fedit"]},
        {"planner": {"name": "icc24"}},
        {"planner": {"quantile": 0.9}},
        {"planner": {"max_participants": 3}},
        {"training": {"server_memory": 0.5}},
        {"network": {"allocation": "equal-share"}},
        {"privacy": {"clip_norm": 1.0, "noise_multiplier": 0.1, "delta": 1e-3}},
    ],
    ids=str,
)
@pytest.mark.parametrize("key", ["beat_seconds", "beat_rate_factor"])
def test_a_key_for_beats_that_nothing_can_use_is_refused(more, key):
    sections = {"methods": ["adaptive"], "network": {"allocation": BAND}, **more}
    training = {**sections.pop("training", {}), key: 0.5, "schedule": "auto"}
    with pytest.raises(InputError, match=rf"\[training\] {key} = 0.5: no method here") as caught:
        check(toy_experiment(training=training, **sections))
    assert "\n" not in str(caught.value)
    one = {key: 0.5, "schedule": "auto"}
    some = ["uniform", "adaptive"]
    check(toy_experiment(training=one, methods=some, network={"allocation": BAND}))


def test_beats_are_chosen_for_devices_that_are_known_alone():
    def guessed(**sections):
        sections = {"network": {"allocation": BAND}, "methods": ["adaptive"], **sections}
        return beats_would_be_guessed(toy_experiment(**sections))

    assert guessed() and guessed(methods=["uniform", "adaptive"])
    assert not guessed(methods=["uniform", "fedbuff"])
    assert not guessed(network={"allocation": BAND, "clients": "mine.csv"})
    assert not guessed(training={"schedule": "overlapping"})
    assert not guessed(training={"schedule": "synchronous"})
    assert not guessed(training={"beat_seconds": 2.0})
    assert not guessed(planner={"max_bias": 0.2})


@pytest.mark.slow
def test_who_enters_does_not_change_how_long_a_run_is(tmp_path):
    asked = toy_experiment(
        methods=["adaptive"], training={"rounds": 40, "eval_every": 10},
        network={"allocation": BAND, "step_spread": 2.0},
    )  # fmt: skip
    everyone = toy_network(asked, np.ones(18))
    first = replace(everyone, clients=Clients.from_columns(
        **everyone.clients.take(range(17)).columns()))  # fmt: skip
    calls = []

    def newcomers(work):
        calls.append(1)
        return work if len(calls) <= 9 else replace(work, network=everyone)

    def site(experiment):
        return replace(place()(experiment), work=toy_work(first), newcomers=newcomers)

    done = run(asked, out=tmp_path / "run", site=site)
    assert [r.round for r in done.records if r.entered] == [9]
    (_, begun), (_, grown) = read_run(done.folder).plans["adaptive"]
    assert begun.schedule == grown.schedule == "overlapping"
    assert grown.sampling_probability.shape == (18,)
    assert len(done.records) == np.ceil(40 * begun.statistics["beats_per_round"])
    assert (
        make_plan(asked, everyone, "adaptive").statistics["beats_per_round"]
        != (begun.statistics["beats_per_round"])
    )


@pytest.mark.slow
def test_a_bias_leads_back_as_the_noise_grows_and_resumes_to_the_same_bits(tmp_path):
    """Updates that differ more and more from client to client leave less room for a bias."""

    def apart(tasks):
        updates = []
        for t in tasks:
            common, own = random_adapter(9), random_adapter(50 + t.client)
            grown = np.float32(min(t.round_index / 20, 4.0))
            goal = {name: common[name] + grown * own[name] for name in common}
            updates += towards(goal, 0.3)([t])
        return updates

    asked = toy_experiment(
        methods=["adaptive"],
        training={"schedule": "overlapping", "rounds": 120, "server_learning_rate": 0.2},
        network={"allocation": BAND, "step_spread": 1.5, "bandwidth_hz": 3e4},
        planner={"max_bias": 0.3, "replan_every": 40, "noise_ratio": 0.3},
    )
    weight = np.ones(18)
    whole = run(asked, out=tmp_path / "whole", site=place(weight=weight, train=apart))
    with pytest.raises(KeyboardInterrupt):
        run(asked, out=tmp_path / "cut", site=place(stop_after=70, weight=weight, train=apart))
    cut = resume(tmp_path / "cut", site=place(weight=weight, train=apart))
    assert [r.to_json() for r in cut.records] == [r.to_json() for r in whole.records]
    plans = read_run(whole.folder).plans["adaptive"]
    assert len(plans) > 1, "no renewal would prove nothing"
    share = [
        np.full(18, 1 / 18) if made.aggregation_weight is None else made.aggregation_weight
        for _, made in plans
    ]
    distance = [np.abs(each - 1 / 18).sum() for each in share]
    assert distance[-1] < 0.7 * distance[0]
    assert len({made.statistics["beats_per_round"] for _, made in plans}) == 1
    # Each update has the weight of the plan that counts it.
    spans = itertools.pairwise([*plans, (120, None)])
    for ((first, made), (end, _)), own in zip(spans, share, strict=True):
        for record in whole.records[first:end]:
            for p in record.participants:
                if p.started_round >= first:
                    busy = record.round - p.started_round
                    cycle = 1 / made.sampling_probability[p.client] + busy
                    assert p.weight == pytest.approx(own[p.client] * cycle)


def test_a_schedule_that_was_chosen_stays_for_later_plans():
    """Whoever enters, whatever is measured: what is underway hangs on it, and what rounds count."""
    asked = toy_experiment(
        methods=["adaptive"], training={"rounds": 500}, network={"allocation": BAND},
        planner={"max_bias": 0.2, "replan_every": 5},
    )  # fmt: skip
    alone = toy_network(asked, np.ones(1))  # waits for nobody
    spread = toy_experiment(network={"allocation": BAND, "step_spread": 2.5})
    unequal = toy_network(spread, np.ones(3))
    chosen = {}
    for network in (alone, unequal):
        begun = make_plan(asked, network, "adaptive")
        later = as_begun(asked, begun)
        chosen[begun.schedule] = later
        for other in (alone, unequal):
            assert make_plan(later, other, "adaptive").schedule == begun.schedule
    assert set(chosen) == {"synchronous", "overlapping"}
    assert chosen["synchronous"].planner.max_bias == 0.0
    named = toy_experiment(training=LATE)
    assert as_begun(named, make_plan(named, alone, "full")) is named


def test_a_beat_of_nothing_is_refused():
    with pytest.raises(InputError, match="beat_seconds"):
        toy_experiment(training={**LATE, "beat_seconds": 0.0})


def test_an_engine_that_can_only_wait_says_so(tmp_path):
    with pytest.raises(InputError, match="SimulatedEngine waits for all"):
        late = toy_experiment(
            methods=["uniform"], training=LATE, network={"allocation": "work-conserving"}
        )
        run(late, out=tmp_path / "no", site=place(SimulatedEngine))


def test_the_rate_of_the_server_follows_the_noise_and_the_delay_of_a_beat():
    """A beat in which nobody is late is a round: factor 1. A shorter one is noisier and later."""
    factors = []
    for beat in (1e3, 0.5, 0.2):
        ready = prepare(toy_experiment(
            methods=["uniform"], network={"allocation": BAND, "bandwidth_hz": 3e3},
            training={**LATE, "beat_seconds": beat, "rounds": 10**5, "server_optimizer": "adam"},
        ), place())  # fmt: skip
        factors.append(schedule_factor(ready.experiment, ready.plans["uniform"]))
        assert ready.plans["uniform"].staleness_seconds.mean >= beat
    assert factors[0] == pytest.approx(1, rel=1e-12)
    assert factors[0] > factors[1] > factors[2] > 0.1
    by_hand = toy_experiment(
        methods=["uniform"], network={"allocation": BAND},
        training={**LATE, "beat_rate_factor": 0.7},
    )  # fmt: skip
    assert schedule_factor(by_hand, prepare(by_hand, place()).plans["uniform"]) == 0.7
