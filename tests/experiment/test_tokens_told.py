"""What max_length cuts is told at the start of a run, kept in its summary, and has a limit."""

import json

import pytest

pytest.importorskip("transformers")

from fedpace.core.errors import InputError
from fedpace.experiment.config import load_experiment
from fedpace.experiment.run import run
from fedpace.reporting.report import write_report
from lora import tiny_models
from tiny import write_experiment

pytestmark = pytest.mark.torch


def experiment(folder, *overrides):
    return load_experiment(
        write_experiment(folder), ["methods=['full']", "training.rounds=1", *overrides]
    )


@pytest.mark.parametrize(
    ("length", "cut"), [pytest.param(12, 0.0, marks=pytest.mark.slow), (5, 1.0)]
)
def test_the_shares_are_told_and_stand_in_summary_and_report(tmp_path, caplog, length, cut):
    caplog.set_level("INFO", "fedpace")
    made = run(experiment(tmp_path, f"model.max_length={length}"), out=tmp_path / "run")
    # Six words; this tokenizer puts nothing around them.
    line = "120 examples of 6 tokens in the median, 6 at 95 %, 6 at most; max_length "
    line += f"{length} cuts {100 * cut:.0f} %"
    assert line in caplog.messages
    tokens = json.loads((made.folder / "summary.json").read_text())["tokens"]
    assert (tokens["cut"], tokens["tokens_p50"], tokens["spoiled"]) == (cut, 6, 0.0)
    pytest.importorskip("matplotlib")
    write_report(made.folder)
    assert f"Trained on {line}." in (made.folder / "report.html").read_text()


def test_a_run_that_could_learn_little_is_refused(tmp_path):
    path = write_experiment(tmp_path)
    tiny_models.write("llama", tmp_path / "decoder")
    for name, count in (("train.jsonl", 30), ("test.jsonl", 10)):
        rows = [{"prompt": f"w{i} w{count}", "response": "w1 " * 20} for i in range(count)]
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    chosen = [f"model.name={tmp_path / 'decoder'}", "model.task=causal-lm", "model.max_length=8",
              "data.partition=iid"]  # fmt: skip
    with pytest.raises(InputError, match=r"max_length = 8: 100 % of the 30 examples lose"):
        run(load_experiment(path, chosen), out=tmp_path / "run")
