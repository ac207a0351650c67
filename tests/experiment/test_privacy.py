"""[privacy] in whole runs: to the bit where it asks nothing, resumed, ended in time, refused."""

import json

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("dp_accounting")

from federation.toy import random_adapter, towards
from fedpace.core.errors import InputError
from fedpace.engines.simulated import SimulatedEngine
from fedpace.estimation.privacy_loss import epsilon, round_loss
from fedpace.experiment.build import check
from fedpace.experiment.config import Experiment, Scenario
from fedpace.experiment.methods import can_overlap
from fedpace.experiment.parsing import parse
from fedpace.experiment.run import resume, run
from fedpace.experiment.scenario import plan_scenario
from fedpace.experiment.site import Site
from fedpace.reporting.report import write_report
from fedpace.reporting.tables import summary_rows
from fedpace.run_folder.checkpoint import read_checkpoint
from fedpace.run_folder.reader import read_records
from toy_work import toy_experiment, toy_network, toy_work

pytestmark = pytest.mark.torch
WEIGHT = [3.0, 1, 2, 2]
TERMS = {"clip_norm": 0.5, "noise_multiplier": 1.0, "delta": 1e-3}
COHORT = {"cohort": 0.5}


def site(told):
    work = toy_work(toy_network(told, WEIGHT), towards(random_adapter(9)))

    def make_engine(setup, now, renewal):
        return SimulatedEngine(setup.train, setup.network, setup.exchange, seed=told.seed, now=now)

    return Site(work, make_engine)


def adapter_of(folder, method="weighted"):
    return read_checkpoint(folder, method).adapter


def private(privacy=TERMS, **sections):
    return toy_experiment(methods=["weighted"], planner=COHORT, privacy=privacy, **sections)


def test_no_noise_and_a_clip_that_nothing_reaches_change_no_bit(tmp_path):
    nothing = {"clip_norm": 1e9, "noise_multiplier": 0.0, "delta": 1e-3}
    run(private(nothing), out=tmp_path / "with", site=site)
    run(private({}), out=tmp_path / "without", site=site)
    plain, same = adapter_of(tmp_path / "without"), adapter_of(tmp_path / "with")
    assert all(np.array_equal(plain[name], same[name]) for name in plain)
    records = read_records(tmp_path / "with")
    assert np.isnan(records[-1].privacy["epsilon_max"])  # infinite; JSON has null
    assert records[-1].train_loss == read_records(tmp_path / "without")[-1].train_loss


def test_a_run_says_what_it_spent_and_resumes_to_the_bit(tmp_path):
    told = private()
    done = run(told, out=tmp_path / "whole", site=site)
    entry = done.summary["methods"]["weighted"]
    plan = json.loads((tmp_path / "whole" / "plan.json").read_text())["methods"]["weighted"]
    q = np.array(plan["sampling_probability"])
    weight = np.array(WEIGHT) / 8 / q
    each = epsilon(8 * round_loss(q, weight, 1.0), 1e-3)
    assert entry["epsilon_max"] == pytest.approx(each.max())
    assert entry["epsilon_client"] == np.argmax(each) and entry["delta"] == 1e-3
    assert entry["epsilon_median"] == pytest.approx(np.median(each))
    header, rows = summary_rows(done.summary)
    assert rows[0][header.index("Epsilon, largest")] == f"{each.max():.3g}"
    page = write_report(tmp_path / "whole").read_text()
    assert f"epsilon = {each.max():.3g} at delta = 0.001" in page
    assert done.records[-1].noise_scale is None  # it would be of the noise that was added

    class CutError(Exception):
        pass

    def stop(record, rounds):
        if record.round == 3:
            raise CutError

    with pytest.raises(CutError):
        run(told, out=tmp_path / "cut", site=site, show=stop)
    resume(tmp_path / "cut", site=site)
    whole, cut = adapter_of(tmp_path / "whole"), adapter_of(tmp_path / "cut")
    assert all(np.array_equal(whole[name], cut[name]) for name in whole)
    records = [r.to_json() for r in read_records(tmp_path / "cut")]
    assert records == [r.to_json() for r in done.records]


def test_a_run_that_would_pass_the_limit_is_refused_with_the_round(tmp_path):
    told = private({**TERMS, "max_epsilon": 4.0}, training={"rounds": 8})
    plan = run(told, out=tmp_path / "fits", site=site)  # weighted is held, and keeps it
    assert plan.summary["methods"]["weighted"]["epsilon_max"] <= 4.0
    never = private({**TERMS, "max_epsilon": 1e-6})
    with pytest.raises(InputError, match="infeasible: with noise_multiplier = 1 max_epsilon"):
        run(never, out=tmp_path / "never", site=site)


def test_a_run_ends_before_the_limit_is_passed(tmp_path, monkeypatch):
    """A plan that turns out to cost more than planned: here nobody held it to the limit."""
    monkeypatch.setattr("fedpace.experiment.methods.privacy_limit", lambda experiment: None)
    told = private({**TERMS, "max_epsilon": 4.0}, training={"rounds": 40})
    with pytest.raises(InputError, match=r"client '\d' would pass it in round \d+ of 40"):
        run(told, out=tmp_path / "refused", site=site)
    monkeypatch.setattr("fedpace.experiment.prepare.check_plan", lambda *given: None)
    done = run(told, out=tmp_path / "ended", site=site)
    entry = done.summary["methods"]["weighted"]
    assert entry["ended_for_privacy"] == len(done.records) < 40
    assert entry["epsilon_max"] <= 4.0
    per_round = done.records[0].privacy["epsilon_max"]
    assert entry["epsilon_max"] + per_round > 4.0 * 0.9  # it did not end far too soon
    assert "one more would have passed" in write_report(tmp_path / "ended").read_text()
    resume(tmp_path / "ended", site=site)  # has nothing left to do
    assert len(read_records(tmp_path / "ended")) == len(done.records)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"methods": ["fedit"]}, "fedit divides by the data of those who came"),
        ({"methods": ["ffa-lora"]}, "divides by the data of those who came"),
        ({"methods": ["hetlora"]}, "weighs by the norms of all who came"),
        ({"methods": ["flexlora"]}, "takes an SVD of products"),
        ({"methods": ["flora"]}, "stacks and merges products"),
        ({"methods": ["fedbuff"]}, "keeps a number of clients busy"),
        ({"methods": ["infocom22"]}, "draws with replacement"),
        (
            {"planner": {"name": "infocom22"}, "methods": ["adaptive"]},
            "[planner] name = 'infocom22': infocom22 draws with replacement, where a client may "
            "count several times in a round; take 'exact' or a planner",
        ),
        ({"training": {"server_memory": 0.5}}, "server_memory = 0.5: an update that is remembered"),
        ({"training": {"schedule": "overlapping"}}, "a busy client cannot start"),
        ({"lora": {"upload_dtype": "int8"}}, "upload_dtype = 'int8'"),
    ],
)
def test_what_the_argument_does_not_cover_is_refused_in_a_line(sections, message):
    with pytest.raises(InputError, match=r"\[privacy\] with") as caught:
        check(toy_experiment(privacy=TERMS, **sections))
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_it_covers_is_taken(dtype):
    check(toy_experiment(privacy=TERMS, methods=["adaptive", "full"], lora={"upload_dtype": dtype}))


@pytest.mark.parametrize("privacy, lora, dtype", [
    ({}, {}, "int8"),
    (TERMS, {}, "float32"),
    (TERMS, {"upload_dtype": "bfloat16"}, "bfloat16"),
    ({}, {"upload_dtype": "int4"}, "int4"),
])  # fmt: skip
def test_uploads_are_int8_unless_a_run_is_private_or_asks_otherwise(privacy, lora, dtype):
    told = parse(Experiment, {"methods": ["weighted"], "lora": lora, "privacy": privacy}, "here")
    check(told)
    assert told.lora.upload_dtype == dtype  # as experiment.toml says


def test_auto_waits_for_all_where_a_run_is_private():
    """The same plan for a run and for `fedpace plan`, with and without a limit."""
    changes = {"methods": ["adaptive"], "training": {"schedule": "auto", "rounds": 60},
               "network": {"allocation": "work-conserving"}}  # fmt: skip
    limited = {**TERMS, "max_epsilon": 4.0}
    told = [toy_experiment(privacy=terms, **changes) for terms in ({}, TERMS, limited)]
    for each in told:
        check(each)
    assert [can_overlap(each, "adaptive") for each in told] == [True, False, False]
    plans = [
        plan_scenario(Scenario(**each.model_dump()), toy_network(each, np.ones(18))).schedule
        for each in told
    ]
    assert plans == ["overlapping", "synchronous", "synchronous"]
