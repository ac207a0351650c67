"""FedScale's device file: its own formula, and pickles that would do more than hold numbers."""

import io
import os
import pickle
import struct
from collections import OrderedDict

import numpy as np
import pytest

from fedpace.core.errors import InputError
from fedpace.wireless.channel import rate_bps, uplink
from fedpace.wireless.clients_file import read_clients, write_clients
from fedpace.wireless.fedscale import read_fedscale

TABLE = {
    7: {"computation": 50.0, "communication": 2000.0},
    "b": {"computation": 80, "communication": 250},
}


def written(folder, content):
    path = folder / "client_device_capacity"
    path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content))
    return path


@pytest.mark.parametrize("protocol", range(6))
def test_steps_and_uploads_take_what_they_take_in_fedscale(tmp_path, protocol):
    """3 x batch x ms for a step; bits over the rate for an upload, whoever else sends."""
    path = written(tmp_path, pickle.dumps(TABLE, protocol))
    clients = read_fedscale(path, batch_size=20)
    assert clients.client_id.tolist() == ["7", "b"]
    np.testing.assert_allclose(clients.step_seconds, [3 * 20 * 0.050, 3 * 20 * 0.080])
    rate = rate_bps(np.minimum(1e9, clients.max_bandwidth_hz), **uplink(clients))
    np.testing.assert_allclose(rate, [2e6, 250e3])
    assert clients.data_weight.tolist() == [0.5, 0.5]
    write_clients(clients, tmp_path / "clients.csv")
    again = read_clients(tmp_path / "clients.csv")
    for name, column in clients.columns().items():
        assert np.array_equal(again.columns()[name], column), name


def test_of_many_some_are_drawn_and_the_seed_says_which(tmp_path):
    table = {n: {"computation": 1.0 + n, "communication": 1000.0} for n in range(50)}
    path = written(tmp_path, table)
    one, same, other = (read_fedscale(path, clients=10, seed=s) for s in (0, 0, 1))
    assert one.client_id.tolist() == same.client_id.tolist() != other.client_id.tolist()
    assert len(set(one.client_id)) == 10
    for name, step in zip(one.client_id, one.step_seconds, strict=True):
        assert step == pytest.approx(3 * 4 * (1 + int(name)) / 1e3)
    with pytest.raises(InputError, match="has 50 clients; take 1 to so many, not 51"):
        read_fedscale(path, clients=51)


class Runs:
    """Unpickled, it makes a folder."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def nested_tuples(depth):
    """A key of tuples in tuples; to hash it takes the stack, or for ever."""
    return b"\x80\x02}(" + b")" + b"\x85" * depth + b"K\x01u."


def shared_tuples(depth):
    """t = (t, t), again and again: a kilobyte that takes 2^depth steps to hash."""
    return b"\x80\x02}(" + b")" + b"2\x86" * depth + b"K\x01u."


def persistent():
    stream = io.BytesIO()

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            return "secret" if value is TABLE else None

    Pickler(stream, 2).dump([TABLE])
    return stream.getvalue()


HOSTILE = {
    "code": (lambda f: pickle.dumps({1: Runs(f / "made")}, 0), "GLOBAL makes more than"),
    "code of protocol 4": (lambda f: pickle.dumps({1: Runs(f / "made")}, 4), "STACK_GLOBAL makes"),
    "code by hand": (lambda f: b"cos\nmkdir\n(S'" + bytes(f / "made") + b"'\ntR.", "GLOBAL makes"),
    "another class": (lambda f: pickle.dumps(OrderedDict(TABLE)), "makes more than numbers"),
    "numpy's numbers": (lambda f: pickle.dumps({1: {"computation": np.float64(3)}}), "GLOBAL"),
    "persistent": (lambda f: persistent(), "BINPERSID makes more"),
    "deep tuples": (lambda f: nested_tuples(200_000), "EMPTY_TUPLE makes"),
    "shared tuples": (lambda f: shared_tuples(60), "EMPTY_TUPLE makes"),
    "a set": (lambda f: pickle.dumps({1: {2, 3}}), "EMPTY_SET makes"),
    "memory": (lambda f: b"\x80\x02}r\xff\xff\xff\x7f.", "LONG_BINPUT 2147483647 is"),
    "memory by words": (lambda f: b"}p999999999\n.", "PUT 999999999 is beyond the file"),
    "a long text": (lambda f: b"\x80\x04\x8d" + struct.pack("<Q", 1 << 60) + b"x.", "no pickle"),
    "a long integer": (lambda f: b"\x80\x02\x8b" + struct.pack("<i", 1 << 30) + b"x.", "no pickle"),
    "many digits": (lambda f: b"L" + b"9" * 100_000 + b"L\n.", "no pickle"),
    "large integers": (lambda f: pickle.dumps({(1 << 61) - 1: 1}), "an integer above 2^60"),
    "deep lists": (lambda f: b"}(K\x01" + b"]" * 99_999 + b"a" * 99_998 + b"u.", "is a list"),
    "no end": (lambda f: pickle.dumps(TABLE)[:-1], "no pickle"),
    "nothing on the stack": (lambda f: b"\x80\x02.", "no pickle"),
    "a name that was never put": (lambda f: b"\x80\x02h\x05.", "no pickle"),
    "a list as a key": (lambda f: b"\x80\x02}(]K\x01u.", "no pickle"),
    "text": (lambda f: b"client_id,step_seconds\n1,2\n", "give a pickled {client:"),
    "nothing": (lambda f: b"", "no pickle"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_pickle_is_told_in_one_line_and_not_run(tmp_path, name):
    make, message = HOSTILE[name]
    with pytest.raises(InputError) as error:
        read_fedscale(written(tmp_path, make(tmp_path)))
    assert message in str(error.value)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400
    assert not (tmp_path / "made").exists()


def test_the_hostile_ones_do_harm_where_nobody_looks(tmp_path):
    """So that the test above is of something."""
    pickle.loads(pickle.dumps({1: Runs(tmp_path / "made")}, 4))
    assert (tmp_path / "made").is_dir()


@pytest.mark.parametrize("table, message", [
    ([1, 2], "not a dictionary of clients"),
    ({}, "not a dictionary of clients"),
    ({1: 5}, "client 1 is a int; give a pickled"),
    ({1: {"computation": 5.0}}, "client 1: communication is None; it must be a number above 0"),
    ({1: {"computation": "5", "communication": 1}}, "computation is '5'; it must be a number"),
    ({1: {"computation": float("nan"), "communication": 1}}, "computation is nan; it must"),
    ({1: {"computation": 0, "communication": 1}}, "computation is 0; it must be a number above 0"),
    ({1: {"computation": -2.5, "communication": 1}}, "computation is -2.5; it must"),
    ({2.5: {"computation": 2, "communication": 1}}, "a client is called by a float"),
    ({"a" * 9999: 3}, "is a int"),
])  # fmt: skip
def test_what_is_no_device_is_told_in_one_line(tmp_path, table, message):
    with pytest.raises(InputError) as error:
        read_fedscale(written(tmp_path, table))
    assert message in str(error.value)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


def test_a_file_that_is_too_long_or_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_fedscale(tmp_path / "none")
    path = tmp_path / "zeros"
    with path.open("wb") as stream:
        stream.truncate((1 << 26) + 1)
    with pytest.raises(InputError, match="longer than 64 MiB"):
        read_fedscale(path)
