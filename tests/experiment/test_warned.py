"""What a run does all the same is said in one line, before it does it."""

import logging

import numpy as np
import pytest

pytest.importorskip("torch")

from experiment.test_overlapping import place
from fedpace.experiment.run import resume, run
from toy_work import toy_experiment

pytestmark = pytest.mark.torch


def warned(caplog):
    found = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    caplog.clear()
    return found


def test_a_plan_that_breaks_a_limit_is_followed_and_said_for_run_and_resume(tmp_path, caplog):
    asked = toy_experiment(
        methods=["uniform", "full"], training={"rounds": 2, "schedule": "synchronous"},
        planner={"max_participants": 1},
    )  # fmt: skip
    site = place(weight=np.ones(6))
    done = run(asked, out=tmp_path / "run", site=site)
    (line,) = warned(caplog)
    assert line.startswith("method 'full' runs with a plan that breaks a limit: infeasible: ")
    assert "max_participants" in line and "\n" not in line
    assert [len(r.participants) for r in done.records if r.method == "full"] == [6, 6]
    resume(tmp_path / "run", site=site)
    assert warned(caplog) == [line]


def test_a_plan_that_comes_to_break_a_limit_is_said_once(tmp_path, caplog, monkeypatch):
    """As newcomers or a renewal may make it."""
    from dataclasses import replace

    from fedpace.experiment import loop

    step = loop._step

    def turned(engine, federation, state):
        record, state = step(engine, federation, state)
        verdict = "infeasible: too many" if state.round_index >= 2 else state.plan.verdict
        return record, replace(state, plan=replace(state.plan, verdict=verdict))

    monkeypatch.setattr(loop, "_step", turned)
    asked = toy_experiment(training={"rounds": 5, "schedule": "synchronous"})
    run(asked, out=tmp_path / "run", site=place(weight=np.ones(6)))
    [line] = warned(caplog)
    assert line.endswith("breaks a limit: infeasible: too many")


@pytest.mark.parametrize("method", ["fedbuff", "ca2fl", "fadas", "fedasync"])
@pytest.mark.parametrize("size", [5, 6, 7])
def test_a_buffer_for_more_than_there_are_is_said_before_the_run(tmp_path, caplog, method, size):
    asked = toy_experiment(
        methods=[method], training={"rounds": 2, "buffer_size": size}, planner={"cohort": 0.5}
    )
    done = run(asked, out=tmp_path / "run", site=place(weight=np.ones(6)))
    arrived = [len(r.participants) for r in done.records]
    if method == "fedasync" or size <= 6:
        assert arrived == [1 if method == "fedasync" else size] * 2 and not warned(caplog)
        return
    (line,) = warned(caplog)
    assert arrived == [6, 6]
    assert line == (
        f"method {method!r}: [training] buffer_size = 7 is more than can arrive: a step takes one "
        "update of a client, and 6 of 6 are there (3 busy at once); so the server waits for all "
        "of them, as rounds do; set buffer_size to 5 at most"
    )
