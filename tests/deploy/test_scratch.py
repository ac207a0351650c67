"""Folders for Flower's programs: those of killed processes do not pile up."""

import subprocess
import sys
import tempfile

import pytest

pytest.importorskip("flwr")

from fedpace.deploy.scratch import scratch_folder

CODE = """
import os, signal
from fedpace.deploy.scratch import scratch_folder
with scratch_folder() as folder:
    print(folder, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_is_removed_by_the_next_and_what_is_in_use_is_not(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    (tmp_path / "fedpace-mine").mkdir()  # somebody's own
    with scratch_folder() as used:
        killed = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True)
        left = killed.stdout.strip()
        assert left and {p.name for p in tmp_path.iterdir()} == {
            "fedpace-mine", used.name, left.rsplit("/", 1)[1],
        }  # fmt: skip
        with scratch_folder() as other:
            names = {p.name for p in tmp_path.iterdir()}
            assert names == {"fedpace-mine", used.name, other.name}
    assert [p.name for p in tmp_path.iterdir()] == ["fedpace-mine"]
