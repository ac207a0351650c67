"""What a served run's folder says of its clock, its command and its model, by itself."""

import json

import pytest

pytest.importorskip("flwr")
pytest.importorskip("torch")
pytest.importorskip("jinja2")

from deploy.in_memory import run_in_memory
from fedpace.reporting.report import write_report

pytestmark = [pytest.mark.torch, pytest.mark.flower]


def test_a_served_run_is_reported_as_measured_and_says_where_the_seconds_went(tmp_path):
    """In memory messages take no time, and the plan counts on a cell: far apart, as told."""
    _, _, record = run_in_memory(tmp_path)
    summary = json.loads((record.folder / "summary.json").read_text())
    assert (summary["clock"], summary["command"]) == ("measured", "fedpace serve")
    assert summary["label_names"] == ["class 0", "class 1", "class 2"]
    entry = summary["methods"]["full"]
    assert not 0.5 < entry["mean_round_seconds"] / entry["predicted_round_seconds"] < 2
    page = write_report(record.folder).read_text()
    assert "Time is real: seconds measured by the server" in page
    assert "Time is virtual" not in page and "Clock is real" in page
    assert "fedpace serve experiment.toml --method full" in page
    assert "times the" in page and "that its plan predicted" in page
    assert "overhead: neither training nor transfer" in page
    assert "with [planner] replan_every the next plans" in page
    assert (record.folder / "adapter" / "README.md").exists()


@pytest.mark.slow
def test_ctrl_c_at_the_server_says_how_to_go_on_also_before_anyone_came(tmp_path):
    import signal
    import socket
    import time

    import tiny
    from warm import Command

    tiny.write_experiment(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    said = tmp_path / "said"
    words = ["serve", "my.toml", "--port", port, "--out", "run"]
    server = Command(words, tmp_path, said)
    while not said.exists() or "clients are there" not in said.read_text():
        assert server.poll() is None
        time.sleep(0.05)
    server.send_signal(signal.SIGINT)
    assert server.wait(60) == 130
    last = said.read_text().strip().splitlines()[-1]
    assert last == "fedpace: interrupted; go on with fedpace serve --resume run"
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["experiment.toml"]
