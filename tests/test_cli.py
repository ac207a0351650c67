"""The command line as people meet it: exit status, one line on stderr, nothing written."""

import json
import logging
import os
import pickle
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import tiny
import warm
from fedpace.cli import main


def fedpace(*words, cwd):
    environment = {**os.environ, "COLUMNS": "100"}
    command = [sys.executable, "-m", "fedpace", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment)


@pytest.fixture
def called(monkeypatch, capsys):
    """The same in this process, by what `fedpace` calls: a start costs a second of computing."""
    log = logging.getLogger("fedpace")
    handlers, level = [*log.handlers], log.level

    def call(*words, cwd):
        monkeypatch.chdir(cwd)
        monkeypatch.setattr(sys, "argv", ["fedpace", *map(str, words)])
        try:
            with pytest.raises(SystemExit) as ended:
                main()
        finally:
            log.handlers[:] = handlers
            log.setLevel(level)
        return subprocess.CompletedProcess(words, ended.value.code or 0, *capsys.readouterr())

    return call


SCENARIO = """
[data]
clients = 8
[planner]
name = "uniform"
[payload]
fixed_bits = 1e5
bits_per_rank = 1e5
"""


def test_plan_prints_the_contract_as_json(tmp_path):
    (tmp_path / "s.toml").write_text(SCENARIO)
    done = fedpace("plan", "s.toml", "--json", "--out", "plan.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert made == json.loads((tmp_path / "plan.json").read_text())
    keys = "planner verdict client_id sampling_probability sketch_rank round_seconds"
    assert {*keys.split(), "relative_rounds", "objective_seconds", "gain"} <= made.keys()
    assert made["round_seconds"].keys() == {"mean", "p50", "p95"}
    assert made["objective_seconds"] == pytest.approx(
        made["round_seconds"]["mean"] * made["relative_rounds"]
    )


def test_plan_prints_a_table_for_people(tmp_path, called):
    (tmp_path / "s.toml").write_text(SCENARIO)
    done = called("plan", "s.toml", "--planner", "exact", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "a round takes" in done.stdout and "predicted speed-up" in done.stdout


def test_a_plan_says_by_which_quantile_it_is_faster(tmp_path, called):
    (tmp_path / "s.toml").write_text(SCENARIO)
    asked = "plan", "s.toml", "--planner", "uniform", "--set", "planner.quantile=0.9"
    done = called(*asked, "--set", "network.overhead_seconds=1.0", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = " ".join(done.stdout.split())
    assert "by the 0.9 quantile of the round time: " in told
    assert "predicted speed-up by that quantile over uniform 1.00x" in told
    assert " s in the mean for each round of full participation" in told


def test_a_key_of_a_plan_can_be_set(tmp_path, called):
    (tmp_path / "s.toml").write_text(SCENARIO)
    done = called("plan", "s.toml", "--set", "lora.rank=3", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert max(json.loads(done.stdout)["sketch_rank"]) == 3
    wrong = fedpace("plan", "s.toml", "--set", "lora.rang=3", cwd=tmp_path)
    assert wrong.returncode == 2 and "rang" in wrong.stderr and "Traceback" not in wrong.stderr


def test_plan_shows_rounds_that_overlap(tmp_path, called):
    text = SCENARIO.replace('"uniform"', '"exact"') + '[training]\nschedule = "overlapping"\n'
    (tmp_path / "s.toml").write_text(text + "beat_seconds = 4.0\n")
    done = called("plan", "s.toml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = " ".join(done.stdout.split())  # however wide the terminal is
    for part in ("rounds overlap, a beat every 4 s", "update every s", "the band is in use",
                 "s that any scheme needs", "synchronous"):  # fmt: skip
        assert part in told
    (tmp_path / "s.toml").write_text(text + "beat_seconds = 0.1\n")
    done = called("plan", "s.toml", cwd=tmp_path)
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (2, 1)
    assert "beat_seconds is 0.1, shorter than the 0.2 s" in done.stderr


def test_devices_of_fedscale_are_planned_for(tmp_path, called):
    table = {n: {"computation": 20.0 + n, "communication": 900.0} for n in range(8)}
    (tmp_path / "devices").write_bytes(pickle.dumps(table))
    done = called("clients", "--from-fedscale", "devices", "--clients", "5", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "5 clients: clients.csv\n"), done.stderr
    text = SCENARIO.replace("clients = 8", "clients = 5")
    (tmp_path / "s.toml").write_text(text + '[network]\nclients = "clients.csv"\n')
    assert called("plan", "s.toml", cwd=tmp_path).returncode == 0
    (tmp_path / "devices").write_bytes(pickle.dumps(SystemExit(3)))
    done = called("clients", "--from-fedscale", "devices", cwd=tmp_path)
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (2, 1)
    assert "GLOBAL makes more than" in done.stderr


@pytest.mark.slow
def test_plan_draws_its_figures(tmp_path):
    pytest.importorskip("matplotlib")
    (tmp_path / "s.toml").write_text(SCENARIO)
    done = fedpace("plan", "s.toml", "--plot", "figures", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    names = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert names == ["clients.png", "round-time.png", "schedules.png", "sweeps.png"]


@pytest.mark.slow
def test_a_plan_that_cannot_be_drawn_prints_no_table(tmp_path):
    (tmp_path / "s.toml").write_text(SCENARIO)
    (tmp_path / "file").touch()
    done = fedpace("plan", "s.toml", "--plot", "file/figures", cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    assert "--plot file/figures cannot be written" in done.stderr


SUITE = """
seeds = [0]
budget = { client_updates = 1, rounds = 1 }
experiment = {}
settings = [{ task = "t", network = "n" }]
tasks.t = { target = "loss<=1", experiment = {} }
networks.n = {}
rates.adam = [{}]
methods.adaptive = { kind = "ours", rates = "adam" }
"""


@pytest.mark.torch
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("plan", "s.toml", "--plot", "file"), "--plot file cannot be written (File exists); give"),
        (("plan", "s.toml", "--out", "none/x"), "--out none/x cannot be written (No such file"),
        (("plan", "s.toml", "--out", "."), "--out . cannot be written (Is a directory); give a"),
        (("clients", "--from-fedscale", "devices", "--out", "none/x"), "none/x: cannot be written"),
        (("bench", "time-to-target", "suite.toml", "--out", "file"), "--out file cannot be"),
        (("bench", "time-to-target", "suite.toml", "--keep", "file/x"), "--keep file/x cannot be"),
        (("bench", "page", "r.jsonl", "--out", "file/x.md"), "--out file/x.md cannot be written"),
        (("run", "--out", "file"), "file is a file; name a folder with --out"),
        (("keys", "add", "a", "--folder", "file"), "--folder file cannot be written (File exists)"),
        (("certificates", "file/x"), "FOLDER file/x cannot be written (Not a directory); give a"),
    ],
    ids=" ".join,
)
def test_what_cannot_be_written_names_its_option_and_a_remedy(words, said, tmp_path, called):
    if words[0] in ("keys", "certificates"):
        pytest.importorskip("cryptography")
    if words[:2] == ("bench", "page"):
        results = Path(__file__).parents[1] / "benchmarks" / "results" / "quick.jsonl"
        (tmp_path / "r.jsonl").write_bytes(results.read_bytes())
    (tmp_path / "s.toml").write_text(SCENARIO)
    (tmp_path / "suite.toml").write_text(SUITE)
    (tmp_path / "devices").write_bytes(
        pickle.dumps({n: {"computation": 20.0 + n, "communication": 900.0} for n in range(8)})
    )
    (tmp_path / "file").touch()
    done = called(*words, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 and said in lines[0] and lines[0].startswith("fedpace: ")


def test_a_plan_refuses_the_target_that_its_run_would(tmp_path, called):
    (tmp_path / "s.toml").write_text(SCENARIO)
    wrong = "training.target=accuracy=0.8"
    done = called("plan", "s.toml", "--set", wrong, cwd=tmp_path)
    assert done.returncode == 2 and "target is 'accuracy=0.8'" in done.stderr


@pytest.mark.parametrize("command", ["run", "plan", "report", "doctor"])
def test_help_shows_an_example(command, tmp_path):
    done = fedpace(command, "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert f"fedpace {command}" in done.stdout.split("Example", 1)[1]


def test_it_says_its_version(tmp_path):
    assert fedpace("--version", cwd=tmp_path).stdout.strip() == f"fedpace {version('fedpace')}"


def test_doctor_names_versions_and_remedies(tmp_path, called):
    found = json.loads(called("doctor", "--json", cwd=tmp_path).stdout)
    by_name = {part["package"]: part for part in found["parts"]}
    assert by_name["numpy"]["version"]
    assert "serve and join" in by_name["flwr"]["for"]
    assert all(part["version"] or part["remedy"] for part in found["parts"])


CLIENTS = "client_id,data_weight,step_seconds,spectral_efficiency\na,1,0.5,2\nb,1,0.5,2\n"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("[network]\nclients = 'none.csv'", "none.csv"),
        ("[network]\nscenario = 'moon'", "scenario 'moon' is unknown; choose one of"),
        ("[network]\nbandwidth_hz = -5", "bandwidth_hz = -5"),
        ("[planner]\nname = 'magic'", "'magic'"),
        ("[planner]\nq_min = 1.5", "q_min = 1.5"),
        ("[lora]\nrank = 0", "s.toml: [lora] rank = 0: it takes 1 or more"),
        ("[data]\nclients = 0", "clients = 0"),
        ("[nonsense]\nx = 1", "unknown key nonsense"),
    ],
)
def test_a_wrong_scenario_ends_in_one_line_and_status_two(change, message, tmp_path, called):
    (tmp_path / "s.toml").write_text(change)
    done = called("plan", "s.toml", cwd=tmp_path)
    assert done.returncode == 2
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 and message in lines[0] and lines[0].startswith("fedpace: ")
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("csv", "message"),
    [
        (CLIENTS.replace("step_seconds", "speed"), "speed"),
        (CLIENTS.replace("a,1,0.5", "a,nan,0.5"), "line 2"),
        (CLIENTS.replace("b,1,", "b,-1,"), "line 3"),
        (CLIENTS.replace("b,1,", "a,1,"), "'a'"),
        ("client_id,data_weight,step_seconds\na,1,1\n", "spectral_efficiency"),
    ],
)
def test_a_wrong_clients_file_is_told_with_its_place(csv, message, tmp_path, called):
    (tmp_path / "clients.csv").write_text(csv)
    (tmp_path / "s.toml").write_text("[network]\nclients = 'clients.csv'")
    done = called("plan", "s.toml", cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr and len(done.stderr.strip().splitlines()) == 1


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("cli")
    tiny.write_experiment(folder)
    return folder


@pytest.mark.torch
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.target=accuracy>0.9", "target is 'accuracy>0.9'"),
        ("training.target=f1>=0.9", "target is 'f1>=0.9'"),
        ("data.name=none.jsonl", "none.jsonl"),
        ("data.clients=5000", "5000"),
        ("lora.rank=0", "[lora] rank = 0"),
        ("lora.rank=500", "allows at most 16"),
        ('lora.target_modules=["q_proj"]', 'no module "q_proj"'),
        ("model.name=nobody/nothing", "nobody/nothing"),
        ("model.task=causal-lm", "set [model] task = 'classification'"),
        ('methods=["magic"]', "method 'magic' is unknown; choose of adaptive"),
        ("network.bandwidth_hz=0", "bandwidth_hz = 0"),
        ("privacy.clip_norm=1.0", "clip_norm needs noise_multiplier and delta too"),
    ],
)
def test_a_wrong_experiment_ends_in_one_line_and_writes_nothing(
    override, message, place, tmp_path, called
):
    before = sorted(path.name for path in place.iterdir())
    words = "run", "my.toml", "--set", override, "--out", "no"
    done = called(*words, cwd=place)
    assert done.returncode == 2, done.stderr
    lines = done.stderr.strip().splitlines()
    assert message in lines[-1] and lines[-1].startswith("fedpace: ")
    assert sum("Traceback" in line for line in lines) == 0 and len(lines) == 1
    assert sorted(path.name for path in place.iterdir()) == before


@pytest.mark.torch
@pytest.mark.slow
def test_run_report_and_resume_from_the_command_line(place, tmp_path):
    def again(*words):
        return warm.fedpace(*words, cwd=place, scratch=tmp_path)

    done = fedpace("run", "my.toml", "--method", "uniform", "--out", "out", cwd=place)
    assert done.returncode == 0, done.stderr
    assert "uniform" in done.stdout and "report.html" in done.stdout
    page = (place / "out" / "report.html").read_text()
    (place / "out" / "report.html").unlink()
    assert again("report", "out").returncode == 0
    assert (place / "out" / "report.html").read_text() == page
    assert again("run", "--resume", "out").returncode == 0
    refused = again("run", "--resume", "out", "--set", "seed=3")
    assert refused.returncode == 2 and "another experiment" in refused.stderr
