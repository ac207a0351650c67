"""Names are shown as they are, every encoding will do, and what ends a command is one line."""

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("flwr")

from rich.console import Console

from fedpace.core.errors import described
from fedpace.core.plan import Decision, Plan
from fedpace.core.record import RoundRecord
from fedpace.deploy.server_view import ServerView
from fedpace.progress import RunProgress
from fedpace.reporting.tables import summary_table
from fedpace.terminal import one_line, open_console, say

SOURCE = Path(__file__).parents[1] / "src" / "fedpace"
EVIL = "[b] tab[/lab/dev3] :smile: [red]x"


def shown(console):
    return console.file.getvalue()


def console():
    made = open_console()
    made.file, made.width = io.StringIO(), 200
    return made


def test_no_module_makes_a_console_of_its_own():
    makers = [
        str(path.relative_to(SOURCE))
        for path in SOURCE.rglob("*.py")
        if "Console(" in path.read_text().replace("open_console(", "")
    ]
    assert makers == ["terminal.py"]
    escaping = [path.name for path in SOURCE.rglob("*.py") if "rich.markup" in path.read_text()]
    assert escaping == []  # there is no markup: what is escaped would be shown so


def test_names_are_shown_as_they_are_wherever_they_stand():
    record = RoundRecord(EVIL, 0, 1.0, 1.0, (), 0, 0, None, 0.0, 0.0, {"loss": 1.0},
                         refusals=((0, EVIL),), diverged=EVIL)  # fmt: skip
    entry = {"rounds": 1, "clock_seconds": 1.0, "upload_bits": 1, "final_loss": 1.0}
    out = console()
    say(out, EVIL)
    out.print(summary_table({"methods": {EVIL: entry}, "target": None, "speedup": {}}))
    with RunProgress(out) as progress:
        progress.show(record, 3)
        progress.note(EVIL)
    with ServerView(out) as view:
        view.names = [EVIL]
        for tell in (view.say, view.note):
            tell(EVIL)
        view.show_record(record, 3)
        view.show_newcomers([EVIL], 1)
    assert shown(out).count(EVIL) >= 10
    assert EVIL.replace("[b]", "") not in shown(out).replace(EVIL, "")


@pytest.mark.parametrize(
    ("method", "underway", "word"),
    [("adaptive", None, "round"), ("adaptive", 2, "beat"), ("fedbuff", 2, "step")],
)
def test_a_servers_steps_are_called_as_the_table_of_the_run_calls_them(method, underway, word):
    record = RoundRecord(method, 3, 1.0, 1.0, (), 0, 0, None, 0.0, 0.0, {"loss": 1.0},
                         underway=underway)  # fmt: skip
    out = console()
    with RunProgress(out) as progress:
        progress.show(record, 9)
    assert f"{word}    4" in shown(out)


def test_a_table_of_clients_has_their_names_as_they_are():
    from fedpace.core.profile import Clients, System
    from fedpace.experiment.scenario import plan_table
    from fedpace.wireless.network import Network

    clients = Clients.from_columns(
        client_id=[EVIL], data_weight=[1], step_seconds=[1], spectral_efficiency=[1]
    )
    made = Plan("test", np.array([EVIL]), Decision(np.ones(1), np.ones(1, np.int64)))
    plain = Console(file=io.StringIO(), width=200)  # even one that takes markup
    plain.print(plan_table(made, Network(clients, System(bandwidth_hz=1e6, lora_rank=4))))
    assert EVIL in shown(plain) and "counts %" not in shown(plain)
    biased = Decision(np.ones(1), np.ones(1, np.int64), aggregation_weight=np.array([0.1234]))
    network = Network(clients, System(bandwidth_hz=1e6, lora_rank=4))
    plain.print(plan_table(Plan("test", np.array([EVIL]), biased), network))
    assert "counts %" in shown(plain) and "12.34" in shown(plain)


def test_a_line_stays_a_line():
    assert one_line("a\nb\x1b[2Jc\u202ed") == "a\\nb\\x1b[2Jc\\u202ed"
    assert one_line("größer ≥ 3") == "größer ≥ 3"
    error = OSError(28, "No space left on device", "runs/1/plan.json")
    assert described(error) == "runs/1/plan.json: No space left on device"


def test_a_path_is_not_wrapped():
    out = console()
    out.width = 20
    say(out, "adapter: " + "x" * 90)
    assert shown(out) == "adapter: " + "x" * 90 + "\n"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "utf-8"])
def test_an_output_without_a_sign_fails_nothing(encoding):
    code = (
        "from fedpace.terminal import *; tolerate_encodings(); "
        "say(open_console(), 'at least ≥ ⟨x⟩ 日本'); print('≥')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True,
                          env={**os.environ, "PYTHONIOENCODING": encoding})  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode(encoding).startswith("at least ")


@pytest.mark.torch
@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on_and_so_does_a_full_disk(tmp_path):
    pytest.importorskip("torch")
    import tiny
    from experiment.kills import small_files
    from warm import Command, fedpace

    text = tiny.EXPERIMENT.replace("rounds = 6", "rounds = 10000")
    tiny.write_experiment(tmp_path, text)
    said = tmp_path / "said"
    process = Command(["run", "my.toml", "--out", "a run"], tmp_path, said)
    rounds = tmp_path / "a run" / "rounds.jsonl"
    while not (rounds.exists() and rounds.stat().st_size):
        assert process.poll() is None, said.read_text()
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    last = said.read_text().strip().splitlines()[-1]
    assert last == "fedpace: interrupted; go on with fedpace run --resume 'a run'"
    assert "Traceback" not in said.read_text()

    done = Command(["run", "--resume", "a run"], tmp_path, said, first=small_files)
    assert done.wait(120) == 1
    last = said.read_text().strip().splitlines()[-1]
    assert last.startswith("fedpace: a run/") and "File too large" in last
    assert last.endswith("once that is mended, go on with fedpace run --resume 'a run'")

    (tmp_path / "here").write_text("")
    done = fedpace("plan", "my.toml", "--out", "here/x.json", cwd=tmp_path, scratch=tmp_path)
    assert done.returncode == 2
    assert done.stderr.strip() == (
        "fedpace: --out here/x.json cannot be written (Not a directory); give a file in a folder "
        "that exists"
    )
