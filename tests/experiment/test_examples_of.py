"""Examples as the experiment's model needs them: its task, and the order of its own classes."""

import json

import pytest

pytest.importorskip("transformers")

import transformers

from fedpace.core.errors import InputError
from fedpace.experiment.build import build_work, examples_of
from fedpace.experiment.config import load_experiment
from tiny import write_experiment, write_model

pytestmark = pytest.mark.torch
NAMES = ("class 2", "class 0", "class 1")


@pytest.fixture
def experiment(tmp_path):
    def with_head(names):
        path = write_experiment(tmp_path)
        config = transformers.BertConfig.from_pretrained(tmp_path / "model")
        config.id2label = dict(enumerate(names))
        config.label2id = {name: c for c, name in enumerate(names)}
        model = transformers.BertForSequenceClassification(config)
        model.save_pretrained(tmp_path / "model")
        return load_experiment(path)

    return with_head


def test_a_kept_head_keeps_its_order_of_the_classes(experiment, tmp_path):
    for stated in (NAMES, tuple(name.upper() for name in NAMES)):
        train, held_out = examples_of(experiment(stated))
        assert train.label_names == held_out.label_names == NAMES
        for examples, file in ((train, "train.jsonl"), (held_out, "test.jsonl")):
            rows = [json.loads(line) for line in (tmp_path / file).read_text().splitlines()]
            assert [NAMES[c] for c in examples.label] == [row["label"] for row in rows]


def test_a_checkpoint_without_a_head_leaves_the_classes_as_they_are(tmp_path):
    path = write_experiment(tmp_path)
    write_model(tmp_path / "model")
    train, _ = examples_of(load_experiment(path))
    assert train.label_names == ("class 0", "class 1", "class 2")


def test_a_head_of_other_names_is_told(experiment, caplog):
    train, _ = examples_of(experiment(("a", "b", "c")))
    assert train.label_names == ("class 0", "class 1", "class 2")
    assert "its head was trained for the classes a, b, c" in caplog.text


def test_labels_that_are_missing_are_told_what_the_column_is_called(tmp_path):
    path = write_experiment(tmp_path)
    for file in ("train.jsonl", "test.jsonl"):
        rows = [json.loads(line) for line in (tmp_path / file).read_text().splitlines()]
        text = "\n".join(json.dumps({"text": r["text"], "genre": r["label"]}) for r in rows)
        (tmp_path / file).write_text(text)
    with pytest.raises(InputError, match="has no column 'label' .*name the column of the classes"):
        examples_of(load_experiment(path))


def test_a_model_that_cannot_read_the_data_is_refused_before_the_run(tmp_path):
    path = write_experiment(tmp_path)
    for file in ("train.jsonl", "test.jsonl"):
        text = (tmp_path / file).read_text()
        (tmp_path / file).write_text(text.replace('"w', '"Wort').replace(" w", " Wort"))
    with pytest.raises(InputError, match="does not know 100% of the data's tokens"):
        build_work(load_experiment(path))
