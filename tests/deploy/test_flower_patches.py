"""What is replaced in Flower, where it is seen from outside."""

import os
from types import SimpleNamespace

import pytest

pytest.importorskip("flwr")

from fedpace.deploy import flower_patches
from fedpace.deploy.client import _await_news


def test_a_node_tells_its_app_of_work_and_of_nothing_else(monkeypatch):
    heard, told = os.pipe()
    answers = iter([None, 7, None, 8])
    loop = SimpleNamespace(_pull_and_store_message=lambda *, state: (state, next(answers))[1])
    monkeypatch.setattr(flower_patches.importlib, "import_module", lambda name: loop)
    monkeypatch.setenv(flower_patches.NEWS_VARIABLE, str(told))
    flower_patches.tell_news()
    os.set_blocking(heard, False)
    for run, said in ((None, b""), (7, b"."), (None, b""), (8, b".")):
        assert loop._pull_and_store_message(state="its own") == run
        try:
            assert os.read(heard, 10) == said
        except BlockingIOError:
            assert said == b""
    os.close(heard)
    os.close(told)


def test_an_app_wakes_when_its_node_tells_of_work_and_when_the_node_ends(monkeypatch):
    """A look without news would come after an hour."""
    monkeypatch.setattr("fedpace.deploy.client._LOOK_SECONDS", 3600.0)
    heard, told = os.pipe()
    os.write(told, b"..")
    _await_news(heard)
    os.set_blocking(heard, False)
    with pytest.raises(BlockingIOError):  # both are read: a task is asked for once
        os.read(heard, 1)
    os.close(told)
    _await_news(heard)
    os.close(heard)
