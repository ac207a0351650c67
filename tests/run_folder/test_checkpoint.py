"""A checkpoint is whole or is not used: cut off, bit-flipped, on a full disk."""

import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from federation.toy import random_adapter
from fedpace.core.errors import InputError
from fedpace.run_folder.checkpoint import read_checkpoint, write_checkpoint
from fedpace.run_folder.schema import Checkpoint


def made(number):
    extra = {"good-adapter": random_adapter(number + 50)}
    return Checkpoint(random_adapter(number), {"mean/x": np.ones(3, np.float32)}, {},
                      {"round": number, "text": "ä"}, extra)  # fmt: skip


def same(one, two):
    assert one.state == two.state
    assert one.more.keys() == two.more.keys()
    parts = [(one.adapter, two.adapter), (one.optimizer, two.optimizer), (one.memory, two.memory)]
    for a, b in [*parts, *((one.more[name], two.more[name]) for name in one.more)]:
        assert a.keys() == b.keys()
        assert all(np.array_equal(a[name], b[name]) for name in a)


@pytest.fixture
def folder(tmp_path):
    for number in (1, 2):
        write_checkpoint(tmp_path, "mine", made(number))
    return tmp_path


def test_what_was_written_is_read_and_nothing_else_is_there(folder):
    same(read_checkpoint(folder, "mine"), made(2))
    assert read_checkpoint(folder, "other") is None
    assert sorted(path.name for path in (folder / "checkpoint").iterdir()) == [
        "mine.before.safetensors",
        "mine.safetensors",
    ]


def test_wherever_a_file_is_cut_off_the_one_before_is_used(folder):
    path = folder / "checkpoint" / "mine.safetensors"
    whole = path.read_bytes()
    for length in [0, 1, 8, 100, *range(200, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:length])
        told = []
        same(read_checkpoint(folder, "mine", told.append), made(1))
        [line] = told
        assert "mine.safetensors is damaged" in line and "going on from the one before" in line


def test_whichever_bit_is_flipped_the_content_is_right_or_the_one_before(folder):
    path = folder / "checkpoint" / "mine.safetensors"
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    passed_over = 0
    for place in [*range(0, 16), *rng.integers(0, len(whole), 400).tolist()]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        told = []
        found = read_checkpoint(folder, "mine", told.append)
        # A space of the header may have become another white space: that is no damage.
        same(found, made(1 if told else 2))
        passed_over += len(told)
    assert passed_over > 400


def test_a_damaged_file_never_takes_the_place_of_a_good_one(folder):
    path = folder / "checkpoint" / "mine.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    same(read_checkpoint(folder, "mine"), made(1))
    write_checkpoint(folder, "mine", made(3))
    path.unlink()  # killed between the two renames of the write after
    same(read_checkpoint(folder, "mine"), made(1))


def test_a_missing_newest_file_is_a_kill_between_two_renames(folder):
    (folder / "checkpoint" / "mine.safetensors").unlink()
    told = []
    same(read_checkpoint(folder, "mine", told.append), made(1))
    assert told == []


def test_two_damaged_files_are_an_error_that_names_both(folder):
    for path in (folder / "checkpoint").iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"mine\.safetensors is damaged .*mine\.before\.safe"):
        read_checkpoint(folder, "mine")


def test_a_checkpoint_of_another_version_is_not_called_damaged(folder, monkeypatch):
    from fedpace.run_folder import checkpoint as module

    monkeypatch.setattr(module, "CHECKPOINT_FORMAT", "fedpace-checkpoint-9")
    write_checkpoint(folder, "mine", made(3))
    monkeypatch.undo()
    with pytest.raises(InputError, match="has format 'fedpace-checkpoint-9'"):
        read_checkpoint(folder, "mine")


def test_files_have_the_mode_of_the_umask(folder):
    [path, *_] = (folder / "checkpoint").iterdir()
    probe = folder / "probe"
    probe.write_text("")
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(probe.stat().st_mode)


def test_a_full_disk_names_the_file_and_leaves_what_was_there(folder):
    """The limit on a file's size stands for the disk: writing stops in the middle."""
    script = f"""
        import resource, signal, sys
        sys.path[:0] = {[str(Path(__file__).parents[1])]!r}
        from run_folder.test_checkpoint import made, write_checkpoint
        from pathlib import Path
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
        try:
            write_checkpoint(Path({str(folder)!r}), "mine", made(3))
        except OSError as error:
            print(error.filename, error.strerror)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)],
                          capture_output=True, text=True, check=True)  # fmt: skip
    assert done.stdout.strip().endswith("mine.safetensors File too large")
    same(read_checkpoint(folder, "mine"), made(2))
    assert not list(folder.rglob("*.part"))
