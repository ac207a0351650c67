"""Kill -9 at any moment: every resume ends as the uninterrupted run, to the bit."""

import json
import time

import pytest

pytest.importorskip("torch")
pytest.importorskip("jinja2")

import tiny
from experiment.kills import PLACES, differences, killed_run
from warm import Command

pytestmark = [pytest.mark.torch, pytest.mark.slow]
METHODS = ("adaptive", "uniform")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    text = tiny.EXPERIMENT.replace(
        "server_learning_rate", "server_memory = 0.5\nserver_learning_rate"
    )
    tiny.write_experiment(folder, text)
    return folder


@pytest.fixture(scope="module")
def whole(place):
    """The uninterrupted run, and its seconds."""
    began = time.monotonic()
    assert Command(["run", "my.toml", "--out", "whole"], place, place / "said").wait(300) == 0
    return place / "whole", time.monotonic() - began


@pytest.mark.parametrize("what", PLACES)
def test_a_run_killed_while_it_works_ends_as_if_it_had_not_been(what, place, whole):
    count = 1 + len(what) * 7 % PLACES[what][1]
    folder = place / what.replace(" ", "-")
    report = what == "writing the report"
    killed, held = killed_run(place, "my.toml", folder, (what, count, True), report)
    assert killed, held
    assert differences(folder, whole[0], METHODS, report) == []


@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
def test_a_run_killed_at_a_random_moment_ends_as_if_it_had_not_been(part, place, whole):
    folder = place / f"random-{part}"
    killed_run(place, "my.toml", folder, part * whole[1], report=False)
    assert differences(folder, whole[0], METHODS, report=False) == []


def test_a_run_of_beats_killed_with_updates_on_their_way_ends_as_if_it_had_not_been(tmp_path):
    methods = ("adaptive", "fedbuff")
    text = tiny.EXPERIMENT.replace('["adaptive", "uniform"]', '["adaptive", "fedbuff"]')
    text = text.replace('"synchronous"', '"overlapping"\nbuffer_size = 2')
    tiny.write_experiment(tmp_path, text)
    assert Command(["run", "my.toml", "--out", "whole"], tmp_path, tmp_path / "said").wait(300) == 0
    lines = (tmp_path / "whole" / "rounds.jsonl").read_text().splitlines()
    underway = [json.loads(line)["underway"] for line in lines]
    for place, count in (("checkpointing", 5), ("adding a record", 7)):
        assert underway[count - 1] > 0
        folder = tmp_path / place.replace(" ", "-")
        killed, held = killed_run(tmp_path, "my.toml", folder, (place, count, True), False)
        assert killed, held
        assert differences(folder, tmp_path / "whole", methods, report=False) == []
