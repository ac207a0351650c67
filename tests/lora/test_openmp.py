import importlib
import os

import pytest

from fedpace.lora import _openmp

pytestmark = pytest.mark.torch


def test_idle_threads_sleep_unless_the_user_has_said_otherwise(monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    importlib.reload(_openmp)
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    importlib.reload(_openmp)
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"
