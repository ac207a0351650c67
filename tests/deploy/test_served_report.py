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
