"""A language model is asked held-out questions, and its report shows what it learned to say."""

import json

import pytest

pytest.importorskip("gguf")

import fedpace as fp
from fedpace.core.errors import InputError
from fedpace.experiment.build import check
from fedpace.reporting.report import write_report
from lora.tiny_gguf import write_gguf
from toy_work import toy_experiment

pytestmark = pytest.mark.torch

EXPERIMENT = """
methods = ["adaptive", "uniform"]
[model]
name = "tiny.gguf"
task = "causal-lm"
max_length = 40
[data]
name = "train.jsonl"
eval = "test.jsonl"
partition = "iid"
clients = 3
[lora]
rank = 4
alpha = 16.0
target_modules = ["q_proj", "v_proj", "o_proj", "up_proj", "down_proj"]
[training]
optimizer = "adamw"
learning_rate = 0.03
server_optimizer = "sgd"
server_learning_rate = 1.0
local_steps = 5
rounds = 25
eval_every = 25
[evaluation]
samples = 2
metrics = ["exact-match", "multiple-choice"]
answers = 4
max_new_tokens = 4
"""


def rows(count):
    for i in range(count):
        yield {"prompt": f"the cat {'sat' * (i % 2)}?", "response": "yes" if i % 2 else "no",
               "choices": ["yes", "no", "sat"]}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("interview")
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setenv("FEDPACE_CACHE", str(folder / "cache"))
    write_gguf(folder / "tiny.gguf")
    for name, count in (("train", 60), ("test", 8)):
        lines = "".join(json.dumps(row) + "\n" for row in rows(count))
        (folder / f"{name}.jsonl").write_text(lines)
    (folder / "e.toml").write_text(EXPERIMENT)
    yield folder
    monkeypatch.undo()


@pytest.fixture(scope="module")
def record(place):
    return fp.run(fp.load_experiment(place / "e.toml"), out=place / "out")


@pytest.mark.slow
def test_a_model_that_learned_the_answers_says_them(record):
    samples = record.summary["samples"]
    assert [s["expected"] for s in samples] == ["no", "yes"]
    assert all("the cat" in s["prompt"] for s in samples)
    generated = record.summary["generated"]
    assert generated["questions"] == 4
    for method in ("adaptive", "uniform"):
        assert [s["after"][method] for s in samples] == ["no", "yes"]
        assert generated["after"][method] == {"exact-match": 1.0, "multiple-choice": 1.0}
    assert generated["before"]["exact-match"] < 1.0
    assert generated["before"]["multiple-choice"] < 1.0


@pytest.mark.slow
def test_the_summary_has_the_perplexity(record):
    entry = record.summary["methods"]["adaptive"]
    assert entry["final_perplexity"] == pytest.approx(2.718281828 ** entry["final_loss"], rel=1e-6)
    assert entry["final_perplexity"] < entry["initial_perplexity"]


@pytest.mark.slow
def test_the_report_shows_the_answers_as_text(record):
    summary = record.folder / "summary.json"
    table = json.loads(summary.read_text())
    table["samples"][0]["before"] = "<b>bold</b>"
    summary.write_text(json.dumps(table))
    page = write_report(record.folder).read_text()
    assert "Answers before and after" in page and "exact-match" in page
    assert "&lt;b&gt;bold" in page and "<b>bold" not in page


def test_an_unknown_metric_is_refused_before_anything_is_written(place, tmp_path):
    experiment = fp.load_experiment(place / "e.toml", ['evaluation.metrics=["bleu"]'])
    with pytest.raises(InputError, match="'bleu'.*rouge-l"):
        fp.run(experiment, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_metric_that_there_is_not_is_refused_of_every_task_before_anything_is_loaded():
    with pytest.raises(InputError, match="metrics has 'bleu'"):
        check(toy_experiment(evaluation={"metrics": ["bleu"]}))
