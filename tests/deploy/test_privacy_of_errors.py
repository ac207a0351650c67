"""What a client's errors tell its server: kinds and counts, no word of its data."""

import json

import pytest

pytest.importorskip("flwr")

from flwr.app import ConfigRecord, Message, RecordDict

from engines.fake_grid import FakeGrid
from fedpace.deploy.client_work import Client, Own
from fedpace.deploy.handshake import versions
from fedpace.engines.flower.client import ClientWork, make_client_app
from fedpace.engines.flower.messages import PROTOCOL
from fedpace.engines.flower.roster import Roster
from tiny import write_experiment

pytestmark = [pytest.mark.flower, pytest.mark.torch]
SECRET = "Ann Lee, ward 7"


@pytest.mark.parametrize(
    "row",
    [
        {"text": "cough", "label": SECRET},
        {"text": {"note": SECRET}, "label": "a"},
        {SECRET: "cough", "label": "a"},
        {"text": SECRET},
        {"text": "", "label": SECRET},
    ],
)
def test_a_client_whose_data_do_not_fit_says_so_without_a_word_of_them(tmp_path, row):
    folder = tmp_path / "ward-seven"
    folder.mkdir()
    (folder / "train.jsonl").write_text(json.dumps(row) + "\n")
    text = write_experiment(tmp_path).read_text()
    text = text.replace('"model"', f'"{tmp_path / "model"}"')
    text = text.replace('"train.jsonl"', f'"{tmp_path / "train.jsonl"}"')
    offer = {
        "protocol": PROTOCOL, "versions": versions(), "run": "r", "experiment": text,
        "labels": ["a", "b"], "base": "", "layout": "",
    }  # fmt: skip
    client = Client(Own("clinic", folder), lambda text: None)
    answer = client.introduce(offer, None)
    assert client.refusal and "ward-seven" in client.refusal or "labels" in client.refusal
    told = json.dumps(answer)
    assert answer["refusal"] and "Ann" not in told and "ward" not in told


def test_a_server_cannot_name_a_file_of_the_client(tmp_path):
    text = write_experiment(tmp_path).read_text()
    text = text.replace("[data]", '[data]\nchat_template = "/etc/passwd"')
    offer = {
        "protocol": PROTOCOL, "versions": versions(), "run": "r", "experiment": text,
        "labels": ["a", "b"], "base": "", "layout": "",
    }  # fmt: skip
    client = Client(Own("clinic", tmp_path), lambda text: None)
    assert "only names travel" in client.introduce(offer, None)["refusal"]


def test_an_exception_at_a_client_reaches_the_server_as_its_type_alone(caplog):
    def introduce(offer, context):
        raise TypeError(f"cannot tokenise {SECRET!r}")

    app = make_client_app(introduce, lambda context: ClientWork(None, None))
    roster = Roster(FakeGrid({1: app}), {"run": "r"})
    roster.poll()
    assert roster.refused == [("1", "TypeError")]
    assert SECRET in caplog.text  # on its own machine


def test_an_exception_in_training_reaches_the_server_as_its_type_alone():
    def work(context):
        raise RuntimeError(f"cannot train on {SECRET!r}")

    app = make_client_app(lambda offer, context: {}, work)
    content = RecordDict({"head": ConfigRecord({"round": 0})})
    grid = FakeGrid({1: app})
    names = grid.push_messages([Message(content, dst_node_id=1, message_type="train")])
    [reply] = grid.pull_messages(names)
    assert reply.error.reason == "RuntimeError"
