"""The example project in a Flower federation that FedPace did not start."""

import re
from contextlib import ExitStack
from pathlib import Path

import pytest

pytest.importorskip("flwr")
pytest.importorskip("torch")

from deploy.processes import flwr, free_port, process, superlink, wait_until
from fedpace.run_folder.reader import read_records
from tiny import EXPERIMENT, write_experiment

pytestmark = [pytest.mark.long, pytest.mark.slow, pytest.mark.flower, pytest.mark.torch]
PROJECT = Path(__file__).parents[2] / "examples" / "04_flower"


def log_of(home, started):
    """What a run's app said, as Flower's own command shows it."""
    run = re.search(r"\b\d{12,20}\b", started.stdout + started.stderr).group()
    shown = flwr(home, "log", run, "here", "--show")
    return shown.stdout + shown.stderr


def test_the_example_project_runs_by_flowers_own_command(tmp_path):
    text = EXPERIMENT.replace("clients = 6", "clients = 2").replace("rounds = 6", "rounds = 1")
    experiment = write_experiment(tmp_path, text.replace('"adaptive", "uniform"', '"full"'))
    home, port = tmp_path / "home", free_port()
    home.mkdir()
    (home / "config.toml").write_text(
        f'[superlink.here]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
    )
    with ExitStack() as stack:
        stack.enter_context(superlink(tmp_path, port))
        for n in range(2):
            node = ["flower-supernode", "--insecure", "--superlink", f"127.0.0.1:{port}", "--port",
                    free_port(), "--node-config", f"partition-id={n} num-partitions=2"]  # fmt: skip
            stack.enter_context(process(node, tmp_path / f"node-{n}.log", home))
        settings = f'experiment="{experiment}" out="{tmp_path / "run"}" clients=2'
        begun = flwr(home, "run", PROJECT, "here", "-c", settings)
        assert begun.returncode == 0, begun.stdout + begun.stderr
        wait_until((tmp_path / "run" / "summary.json").exists, "the run's end", 900)
        said = lambda run: log_of(home, run)  # noqa: E731
        wait_until(lambda: "report:" in said(begun), "the report", 240)
        again = flwr(home, "run", PROJECT, "here", "-c", settings)
        assert again.returncode == 0
        wait_until(lambda: "exists and is not empty" in said(again), "the refusal", 400)
        for run in (begun, again):
            assert "Traceback" not in said(run) and 'File "' not in said(run)
    assert (tmp_path / "run" / "report.html").exists()
    [record] = read_records(tmp_path / "run")
    assert [p.client for p in record.participants] == [0, 1]
