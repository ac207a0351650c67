import csv
import gzip
import json
import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from fedpace.core.errors import InputError, MissingExtraError
from fedpace.data.load import load_data, load_training

SPAM = [{"text": f"offer {i}", "label": "spam"} for i in range(20)]
HAM = [{"text": f"minutes {i}", "label": "ham"} for i in range(20)]


def jsonl(path, rows):
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
    return str(path)


def test_a_folder_with_train_and_test_is_taken_as_it_is(tmp_path):
    jsonl(tmp_path / "train.jsonl.gz", SPAM + HAM)
    jsonl(tmp_path / "test.jsonl.gz", HAM[:3])
    (tmp_path / "README.md").write_text("not data")
    train, test = load_data(str(tmp_path), seed=0)
    assert train.text == tuple(row["text"] for row in SPAM + HAM)
    assert train.label_names == test.label_names == ("ham", "spam")
    assert (train.label.tolist(), test.label.tolist()) == ([1] * 20 + [0] * 20, [0] * 3)


def test_a_file_alone_has_a_tenth_held_out_class_by_class(tmp_path):
    train, test = load_data(jsonl(tmp_path / "mail.jsonl", SPAM + HAM), seed=5)
    assert (len(train), np.bincount(test.label).tolist()) == (36, [2, 2])
    again = load_data(str(tmp_path), seed=5)  # a folder with this one file is the same
    assert (again[0].text, again[1].text) == (train.text, test.text)
    assert load_data(str(tmp_path), seed=6)[1].text != test.text


def test_evaluation_data_may_be_another_split_or_file_of_another_format(tmp_path):
    train_file = jsonl(tmp_path / "train.jsonl", SPAM + HAM)
    jsonl(tmp_path / "test.jsonl", SPAM[:1])
    jsonl(tmp_path / "valid.jsonl", SPAM[:2])
    with (tmp_path / "other.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["label", "text"], ["ham", "a, b"], ["spam", "c"]])
    assert len(load_data(str(tmp_path), seed=0)[1]) == 1
    assert len(load_data(str(tmp_path), eval="valid", seed=0)[1]) == 2
    for source in (str(tmp_path), train_file):
        test = load_data(source, eval=str(tmp_path / "other.csv"), seed=0)[1]
        assert (test.text, test.label.tolist()) == (("a, b", "c"), [0, 1])


def test_shards_of_a_split_are_read_one_after_the_other(tmp_path):
    for i in range(3):
        jsonl(tmp_path / f"train-0000{i}-of-00003.jsonl", SPAM[5 * i : 5 * i + 5])
    jsonl(tmp_path / "validation-00000-of-00001.jsonl", SPAM[-2:])
    train, test = load_data(str(tmp_path), seed=0)
    assert train.text == tuple(row["text"] for row in SPAM[:15])
    assert len(test) == 2


def test_class_names_are_taken_from_meta_json(tmp_path):
    rows = [{"text": "a", "label": 0}, {"text": "b", "label": 1}]
    train_file = jsonl(tmp_path / "train.jsonl", rows)
    jsonl(tmp_path / "test.jsonl", rows[:1])
    (tmp_path / "meta.json").write_text('{"label_names": ["no", "yes", "maybe"]}')
    for name in (str(tmp_path), train_file):
        assert load_data(name, seed=0)[0].label_names == ("no", "yes", "maybe")


def test_plain_text_and_speeches_make_corpora_and_groups_stay(tmp_path):
    (tmp_path / "train.txt").write_text("one\n\ntwo\n\nthree\n")
    jsonl(
        tmp_path / "by_speaker.jsonl", [{"text": "hi", "group": "A"}, {"text": "ho", "group": "B"}]
    )
    train, test = load_data(str(tmp_path), seed=0)
    assert (train.kind, len(train), len(test), train.label) == ("corpus", 2, 1, None)
    spoken, test = load_data(
        str(tmp_path / "by_speaker.jsonl"), eval=str(tmp_path / "train.txt"), seed=0
    )
    assert (spoken.group, test.group, len(test)) == (("A", "B"), None, 3)


def test_the_embedded_set_holds_out_about_a_seventh(tmp_path):
    train, test = load_data("stdlib-docs", seed=0)
    assert len(test) == round(0.15 * (len(train) + len(test)))
    assert not set(train.text) & set(test.text)
    with pytest.raises(InputError, match="eval = 'mine.jsonl'.*leave eval away"):
        load_data("stdlib-docs", eval="mine.jsonl", seed=0)


def files(folder, **contents):
    for stem, rows in contents.items():
        jsonl(folder / f"{stem}.jsonl", rows)
    return str(folder)


def test_labels_that_only_the_evaluation_has_are_named_with_file_and_line(tmp_path):
    name = files(tmp_path, train=SPAM + HAM, test=[*HAM, {"text": "x", "label": "eggs"}])
    with pytest.raises(InputError, match=r"test\.jsonl:21: label 'eggs' is none of the 2 classes"):
        load_data(name, seed=0)


def test_training_and_evaluation_must_be_of_one_kind(tmp_path):
    name = files(tmp_path, train=SPAM, test=[{"prompt": "p", "response": "r"}])
    said = r"test\.jsonl:1 is of kind 'instruct', the training data of kind 'single'"
    with pytest.raises(InputError, match=said):
        load_data(name, seed=0)


@pytest.mark.parametrize(
    "name, said",
    [
        ("missing.jsonl", r"name = 'missing\.jsonl': no such file or folder \(looked in .*correct"),
        ("stdlib_docs", r"name = 'stdlib_docs': no such file .* name 'stdlib-docs' or a hub id"),
        ("a/b/c", r"name = 'a/b/c': no such file"),
        ("/nowhere/data", r"name = '/nowhere/data': no such file"),
    ],
)
def test_a_name_that_is_nothing_is_said_to_be_nothing(tmp_path, monkeypatch, name, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=said):
        load_data(name, seed=0)


def test_a_folder_without_data_without_train_or_with_two_of_a_split_is_refused(tmp_path):
    with pytest.raises(InputError, match="no data file here"):
        load_data(str(tmp_path), seed=0)
    files(tmp_path, a=SPAM, b=HAM)
    with pytest.raises(InputError, match="has no 'train' among a, b; name the file"):
        load_data(str(tmp_path), seed=0)
    files(tmp_path, train=SPAM)
    (tmp_path / "train.txt").write_text("text")
    with pytest.raises(InputError, match=r"train\.jsonl, train\.txt are all 'train'; keep one"):
        load_data(str(tmp_path), seed=0)


def test_evaluation_data_that_are_not_there_or_trained_on_are_refused(tmp_path):
    name = files(tmp_path, train=SPAM)
    with pytest.raises(InputError, match="eval = 'dev': neither a file nor a split .*has train"):
        load_data(name, eval="dev", seed=0)
    with pytest.raises(InputError, match="eval = 'train' is what is trained on"):
        load_data(name, eval="train", seed=0)


@pytest.mark.parametrize("meta", ["{", '{"label_names": "ab"}', '{"label_names": ["a", "a"]}'])
def test_a_faulty_meta_json_is_named(tmp_path, meta):
    name = files(tmp_path, train=SPAM)
    (tmp_path / "meta.json").write_text(meta)
    with pytest.raises(InputError, match=r"meta\.json: "):
        load_data(name, seed=0)


class Split(list):
    """The three things that a `datasets.Dataset` is asked for here."""

    def __init__(self, rows, names=None):
        super().__init__(rows)
        self.features = {"label": type("ClassLabel", (), {"names": names})()}


def test_a_hub_id_gives_its_splits_and_its_class_names(monkeypatch):
    asked = []

    def load_dataset(path, config):
        asked.append((path, config))
        rows = [{"text": "a", "label": 0}, {"text": "b", "label": 1}]
        unlabelled = [{"text": "a", "label": -1}]
        return {
            "train": Split(rows, ["neg", "pos"]),
            "validation": Split(rows[1:], ["neg", "pos"]),
            "unsupervised": Split(unlabelled, ["neg", "pos"]),
        }

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    train, test = load_data("owner/reviews:plain", seed=0)
    assert asked == [("owner/reviews", "plain")]
    assert (train.label_names, test.label.tolist()) == (("neg", "pos"), [1])
    said = (
        r"owner/reviews\[unsupervised\]: row 1: label -1 is none of the 2 classes .*\[data\] eval"
    )
    with pytest.raises(InputError, match=said):
        load_data("owner/reviews", eval="unsupervised", seed=0)
    assert asked[1] == ("owner/reviews", None)


def test_a_hub_that_cannot_be_reached_is_an_input_error_of_one_line(monkeypatch):

    def load_dataset(path, config):
        raise ConnectionError("Couldn't reach the Hub\nand much more")

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    said = r"name = 'owner/x': no such file .*ConnectionError: Couldn't reach the Hub\).*network"
    with pytest.raises(InputError, match=said) as caught:
        load_data("owner/x", seed=0)
    assert "\n" not in str(caught.value)


def test_without_datasets_a_hub_id_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=re.escape("pip install 'fedpace[lora]'")):
        load_data("owner/x", seed=0)


def test_holdout_takes_its_examples_from_the_training_data_alone():
    train, test = load_data("stdlib-docs", seed=0)
    tune_train, tune_eval = load_data("stdlib-docs", eval="holdout", seed=0)
    assert sorted([*tune_train.text, *tune_eval.text]) == sorted(train.text)
    assert not set(tune_eval.text) & set(test.text)
    assert 0.05 < len(tune_eval) / len(train) < 0.15


@pytest.mark.parametrize(
    ("train_name", "eval_name"),
    [("train", "val"), ("Train", "TEST"), ("training", "testing"), ("TRAIN", "Validation"),
     ("train", "evaluation"), ("train", "development"), ("train", "dev")],
)  # fmt: skip
def test_splits_are_known_by_their_usual_words_in_any_case(tmp_path, train_name, eval_name):
    name = files(tmp_path, **{train_name: SPAM + HAM[:10], eval_name: HAM[10:]})
    for eval in (None, eval_name, eval_name.lower()):
        train, test = load_data(name, eval=eval, seed=0)
        assert (len(train), len(test)) == (30, 10)


def test_what_lies_in_the_folder_and_is_not_used_is_named(tmp_path, caplog):
    name = files(tmp_path, train=SPAM, test=HAM[:2], extra=HAM)
    jsonl(tmp_path / "more.json", HAM)
    (tmp_path / "README.md").write_text("not data")
    (tmp_path / "old").mkdir()
    with pytest.raises(InputError, match="'ham' is none"):
        load_data(name, seed=0)
    assert caplog.messages == [f"{name}: not used: extra.jsonl, more.json, old/"]
    caplog.clear()
    (tmp_path / "test.jsonl").unlink()
    load_data(name, seed=0)
    assert caplog.messages == [f"{name}: not used: extra.jsonl, more.json, old/"]


def test_a_folder_whose_data_lie_deeper_says_so(tmp_path):
    (tmp_path / "data").mkdir()
    files(tmp_path / "data", train=SPAM)
    with pytest.raises(InputError, match=r"no data file here .*; there is data$"):
        load_data(str(tmp_path), seed=0)


def link(target, path, how):
    if how == "copy":
        path.write_bytes(target.read_bytes())
    elif how == "other format":
        rows = [json.loads(line) for line in target.read_text().splitlines()]
        with path.with_suffix(".csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, ["text", "label"])
            writer.writeheader()
            writer.writerows(reversed(rows))
        return path.with_suffix(".csv")
    elif how == "same":
        return target.parent / ".." / target.parent.name / target.name
    else:
        getattr(path, how)(target)
    return path


@pytest.mark.parametrize("how", ["symlink_to", "hardlink_to", "copy", "other format", "same"])
@pytest.mark.parametrize("as_folder", [True, False])
def test_evaluation_on_the_training_file_is_refused_by_whatever_path(tmp_path, how, as_folder):
    folder = tmp_path / "ds"
    folder.mkdir()
    files(folder, train=SPAM + HAM)
    name = folder if as_folder else folder / "train.jsonl"
    other = link(folder / "train.jsonl", tmp_path / "other.jsonl", how)
    with pytest.raises(InputError, match="is what is trained on"):
        load_data(str(name), eval=str(other), seed=0)


def test_a_test_split_that_links_to_the_training_file_is_refused(tmp_path):
    name = files(tmp_path, train=SPAM)
    (tmp_path / "test.jsonl").symlink_to(tmp_path / "train.jsonl")
    with pytest.raises(InputError, match="is what is trained on"):
        load_data(name, seed=0)


def test_evaluation_examples_that_are_trained_on_are_counted(tmp_path, caplog):
    load_data(files(tmp_path, train=SPAM + HAM[:10], test=HAM[5:]), seed=0)
    assert caplog.messages == ["5 of 15 evaluation examples are trained on, too"]


def test_the_same_rows_are_the_same_classes_in_every_format(tmp_path):
    labels = [0, 1, 2.0, "3", "004", "five", True] * 5
    rows = [{"text": f"text {i}", "label": label} for i, label in enumerate(labels)]
    jsonl(tmp_path / "rows.jsonl", rows)
    with (tmp_path / "rows.csv").open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, ["text", "label"])
        writer.writeheader()
        writer.writerows(rows)
    found = [load_data(str(tmp_path / f"rows.{s}"), seed=0) for s in ("jsonl", "csv")]
    assert found[0][0].label_names == ("0", "1", "2", "3", "004", "five", "true")
    assert found[0][0].label_names == found[1][0].label_names
    for one, other in zip(*found, strict=True):
        assert (one.text, one.label.tolist()) == (other.text, other.label.tolist())


def test_a_meta_json_may_have_a_byte_order_mark_and_no_names_that_match_nothing(tmp_path):
    name = files(tmp_path, train=[{"text": f"{i}", "label": i % 2} for i in range(9)])
    (tmp_path / "meta.json").write_text('{"label_names": ["no", "yes"]}', encoding="utf-8-sig")
    assert load_data(name, seed=0)[0].label_names == ("no", "yes")
    for wrong in ('[" no", "yes"]', '["", "yes"]', '["\\ud83d", "yes"]'):
        (tmp_path / "meta.json").write_text(f'{{"label_names": {wrong}}}')
        with pytest.raises(InputError, match=r"meta\.json: label_names must be"):
            load_data(name, seed=0)


def test_a_label_column_in_which_no_value_stands_twice_is_refused(tmp_path):
    rows = [{"text": "ham", "label": f"text number {i}"} for i in range(20)]
    with pytest.raises(InputError, match="each of the 20 examples has a label of its own"):
        load_data(jsonl(tmp_path / "swapped.jsonl", rows), seed=0)


def test_an_empty_name_is_not_the_folder_one_stands_in(tmp_path, monkeypatch):
    files(tmp_path, train=SPAM)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="name is empty"):
        load_data("", seed=0)


@pytest.mark.parametrize("name", ["a" * 5000, "~no-such-user/x", "a\0b", "\ud83d"])
def test_a_name_that_no_path_can_have_is_an_input_error(name, tmp_path):
    with pytest.raises(InputError, match="name = "):
        load_data(name, seed=0)
    with pytest.raises(InputError, match="eval = "):
        load_data(files(tmp_path, train=SPAM), eval=name, seed=0)


def test_integer_labels_of_a_client_are_indices_into_the_servers_names(tmp_path):
    rows = "".join(f'{{"text": "t{n}", "label": {n % 3}}}\n' for n in range(6))
    (tmp_path / "mine.jsonl").write_text(rows)
    found = load_training(str(tmp_path / "mine.jsonl"), ["no", "yes", "maybe"])
    assert list(found.label) == [0, 1, 2, 0, 1, 2]
    named = load_training(str(tmp_path / "mine.jsonl"), ["2", "1", "0"])
    assert list(named.label) == [2, 1, 0, 2, 1, 0]  # where they are the names, they mean those
    with pytest.raises(InputError):
        load_training(str(tmp_path / "mine.jsonl"), ["no", "yes"])


def test_a_folder_with_only_a_test_split_is_not_trained_on_and_serves_a_server(tmp_path):
    rows = "".join(f'{{"text": "t{n}", "label": "{"ab"[n % 2]}"}}\n' for n in range(6))
    (tmp_path / "test.jsonl").write_text(rows)
    with pytest.raises(InputError, match="has only 'test', which is to evaluate on"):
        load_data(str(tmp_path), seed=0)
    with pytest.raises(InputError, match="has only 'test'"):
        load_training(str(tmp_path), ["a", "b"])
    _, held = load_data(str(tmp_path), seed=0, train_elsewhere=True)
    assert len(held) == 6 and held.label_names == ("a", "b")


def test_a_server_may_evaluate_on_the_one_data_set_it_has(tmp_path, caplog):
    """Nothing of `name` is trained on there; what trains on it refuses, and so do other kinds."""
    rows = "".join(f'{{"text": "t{n}", "label": "{"ab"[n % 2]}"}}\n' for n in range(6))
    path = str(tmp_path / "mine.jsonl")
    for name in ("mine", "copy"):
        (tmp_path / f"{name}.jsonl").write_text(rows)
    (tmp_path / "part.jsonl").write_text(rows[: len(rows) // 2])
    (tmp_path / "other.jsonl").write_text('{"text": "no label"}\n')
    for eval in (path, str(tmp_path / "copy.jsonl"), "train"):
        with pytest.raises(InputError, match="is what is trained on"):
            load_data(path, eval=eval, seed=0)
        _, held = load_data(path, eval=eval, seed=0, train_elsewhere=True)
        assert len(held) == 6 and held.label_names == ("a", "b")
    load_data(path, eval=str(tmp_path / "part.jsonl"), seed=0, train_elsewhere=True)
    assert "trained on" not in caplog.text
    with pytest.raises(InputError, match="both must be of one kind"):
        load_data(path, eval=str(tmp_path / "other.jsonl"), seed=0, train_elsewhere=True)
