"""Two runs never share a folder, whoever is faster, and what ends leaves it free."""

import multiprocessing
import os
from pathlib import Path

import pytest

from fedpace.core.errors import InputError
from fedpace.run_folder.claim import held, new_folder
from fedpace.run_folder.schema import LOCK

_FORK = multiprocessing.get_context("fork")


def _claims(parent, ready, found):
    ready.wait()
    with new_folder(None, parent) as folder:
        (folder / "content").write_text("")
        found.put(folder.name)
        ready.wait()  # until all have claimed


def test_those_who_begin_at_once_get_a_folder_each(tmp_path):
    count = 8
    ready, found = _FORK.Barrier(count), _FORK.Queue()
    made = [_FORK.Process(target=_claims, args=(tmp_path / "runs", ready, found)) for _ in range(8)]
    for process in made:
        process.start()
    names = sorted(found.get(timeout=30) for _ in range(count))
    for process in made:
        process.join()
    assert names == [str(n + 1) for n in range(count)]


def test_a_folder_that_is_held_is_refused_naming_the_process(tmp_path):
    with (
        new_folder(tmp_path / "run", tmp_path) as folder,
        pytest.raises(InputError, match=f"is in use by process {os.getpid()} on "),
        held(folder),
    ):
        raise AssertionError("both hold it")
    assert not folder.exists()  # nothing was put into it


def _hold(folder, told):
    with held(folder):
        told.put("held")
        told.get()


def test_a_process_that_is_killed_leaves_the_folder_free(tmp_path):
    import time

    told = _FORK.Queue()
    holder = _FORK.Process(target=_hold, args=(tmp_path, told))
    holder.start()
    assert told.get(timeout=30) == "held"
    with pytest.raises(InputError, match=f"in use by process {holder.pid} "), held(tmp_path):
        pass
    holder.kill()
    holder.join()
    assert (tmp_path / LOCK).exists()
    for _ in range(100):  # the lock ends with the process, not with its being waited for
        try:
            with held(tmp_path):
                break
        except InputError:
            time.sleep(0.01)
    assert not (tmp_path / LOCK).exists()


def test_what_has_content_is_left_alone_and_what_failed_before_is_removed(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="exists and is not empty"), new_folder(tmp_path, tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(ZeroDivisionError), new_folder(tmp_path / "a" / "b", tmp_path):
        raise ZeroDivisionError
    assert not (tmp_path / "a").exists()
    with pytest.raises(InputError, match="is a file"), new_folder(tmp_path / "notes.txt", tmp_path):
        pass
    with (
        pytest.raises(InputError, match="cannot be made .*; name another folder"),
        new_folder(tmp_path / "notes.txt" / "run", tmp_path),
    ):
        pass


def test_an_empty_folder_and_one_of_a_killed_claim_are_taken(tmp_path):
    (tmp_path / LOCK).write_text("process 1 on another\n")
    (tmp_path / "experiment.toml.part").write_text("seed")
    with new_folder(tmp_path, tmp_path) as folder:
        (folder / "content").write_text("")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["content", "experiment.toml.part"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_told_in_one_line(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match=f"{tmp_path} cannot be written"), held(tmp_path):
        pass


def test_a_folder_on_a_read_only_file_system_is_told_in_one_line():
    where = Path("/proc/self")  # nobody, not even root, makes a file there
    with pytest.raises(InputError, match="/proc/self cannot be written"), held(where):
        pass
