import json

import numpy as np
import pytest

from fedpace.core.errors import InputError
from fedpace.run_folder.reader import read_run, read_summary
from fedpace.run_folder.schema import FILES


@pytest.fixture
def folder(write_run, tmp_path):
    return write_run(tmp_path / "run", clients=6, rounds=6)


def test_a_run_folder_reads_back_what_was_written(folder):
    run = read_run(folder)
    summary = json.loads((folder / "summary.json").read_text())
    assert list(run.records) == list(run.plans) == ["adaptive", "uniform", "proportional"]
    assert {n: len(r) for n, r in run.records.items()} == {
        n: e["rounds"] for n, e in summary["methods"].items()
    }
    assert [first for first, _ in run.plans["adaptive"]] == [0, 3]
    assert run.clients.data_weight.sum() == pytest.approx(1)
    assert np.all(run.upload_seconds > 0)
    assert str(run.target) == summary["target"]
    assert run.notes == []


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named_with_the_remedy(folder, name):
    (folder / name).unlink()
    with pytest.raises(InputError, match=f"{name} is missing.*--resume"):
        read_run(folder)


def test_another_folder_is_not_taken_for_a_run(tmp_path):
    with pytest.raises(InputError, match="is it a run folder"):
        read_run(tmp_path)
    with pytest.raises(InputError, match="is not a folder"):
        read_run(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"summary.json is missing"):
        read_summary(tmp_path)


def test_a_last_line_that_was_cut_off_is_left_out_and_said(folder):
    path = folder / "rounds.jsonl"
    text = path.read_text()
    path.write_text(text[: text.rstrip().rindex("\n") + 40])
    run = read_run(folder)
    summary = read_summary(folder)
    assert len(run.records["proportional"]) == summary["methods"]["proportional"]["rounds"] - 1
    assert len(run.notes) == 2
    assert "cut off" in run.notes[0]
    assert "summary.json counts 6 rounds of proportional, rounds.jsonl has 5" in run.notes[1]


def test_a_damaged_line_in_the_middle_is_an_error(folder):
    path = folder / "rounds.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:3], lines[3][:40], *lines[4:]]))
    with pytest.raises(InputError, match=r"rounds.jsonl line 4 is not valid JSON"):
        read_run(folder)


def change(path, edit):
    table = json.loads(path.read_text())
    edit(table)
    path.write_text(json.dumps(table))


@pytest.mark.parametrize(
    ("name", "edit", "message"),
    [
        ("summary.json", lambda t: t.pop("speedup"), "has no 'speedup'"),
        ("summary.json", lambda t: t["methods"].clear(), "has no methods"),
        ("summary.json", lambda t: t["methods"].pop("uniform"), "'uniform', which summary.json"),
        ("plan.json", lambda t: t["methods"].pop("uniform"), "no plan of method 'uniform'"),
        ("plan.json", lambda t: t["methods"]["uniform"].pop("verdict"), "cannot be read.*verdict"),
        ("plan.json", lambda t: t["methods"]["uniform"]["sampling_probability"].pop(), "uniform"),
        ("plan.json", lambda t: t.pop("clients"), "start_seconds has 0 entries for 6 clients"),
    ],
)
def test_what_does_not_fit_together_is_named(folder, name, edit, message):
    change(folder / name, edit)
    with pytest.raises(InputError, match=message):
        read_run(folder)


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ("phone-9,0.1", "line 8: 2 cells where the header has 5"),
        ("phone-9,much,1,1,inf", "line 8: data_weight is 'much'"),
        ("phone-9,0.1,1,1,inf", "plan of 'adaptive' is not for the 7 clients"),
    ],
)
def test_a_client_table_that_does_not_fit_is_refused(folder, cells, message):
    with (folder / "clients.csv").open("a") as file:
        file.write(cells + "\n")
    with pytest.raises(InputError, match=message):
        read_run(folder)


def test_a_record_of_an_unknown_client_is_refused(folder):
    path = folder / "rounds.jsonl"
    lines = path.read_text().splitlines()
    table = next(t for t in map(json.loads, lines) if t["participants"])
    table["participants"][0]["client"] = 99
    path.write_text(json.dumps(table) + "\n")
    with pytest.raises(InputError, match=r"line 1 names a client outside 0..5"):
        read_run(folder)


def test_broken_json_is_named(folder):
    (folder / "plan.json").write_text("{")
    with pytest.raises(InputError, match="plan.json is not valid JSON"):
        read_run(folder)
