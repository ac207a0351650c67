"""Recorded links: what is read, and what is refused in one line."""

import numpy as np
import pytest

from fedpace.core.errors import InputError
from fedpace.wireless.gain_trace import read_gain_trace


def written(folder, text):
    path = folder / "trace.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_rate_holds_until_the_next_time(tmp_path, mark):
    trace = read_gain_trace(written(tmp_path, mark + b"time,rate\r\n10,1\r\n11,3\r\n12,2\r\n"))
    assert trace.length_seconds == 3.0
    assert trace.gain.tolist() == [0.5, 1.5, 1.0]
    assert trace.at(np.array([0.0, 0.99, 1.0, 2.5])).tolist() == [0.5, 0.5, 1.5, 1.0]


def test_packets_are_counted_in_tenths_of_a_second(tmp_path):
    # 3 packets in the first tenth, none in the second, 1 in the third.
    trace = read_gain_trace(written(tmp_path, "0\n40\n99\n250\n"))
    np.testing.assert_allclose(trace.seconds, [0, 0.1, 0.2])
    np.testing.assert_allclose(trace.gain, np.array([3, 0, 1]) / (4 / 3))
    assert trace.length_seconds == pytest.approx(0.3)


@pytest.mark.parametrize("text, message", [
    ("time,rate\n0,1\n1,-2\n", "line 3: rate is -2; give 0 or more"),
    ("time,rate\n0,1\n1,nan\n", "line 3: rate is 'nan'; give a number"),
    ("time,rate\n0,1\n0,2\n", "line 3: time is 0 after 0; sort by time"),
    ("time,rate\n0,1\n1,1\n2,1\n40,1\n", "nothing from time 2 to 40, where the usual step is 1 s"),
    ("time,rate\n0,1,2\n", "line 2: '0,1,2' is 3 cells; write time,rate: two numbers and one"),
    ("time,rate\n0 5.0\n", "line 2: '0 5.0' is one cell; write time,rate: two numbers and one"),
    ("seconds,mbps\n0,1\n", "name them time,rate"),
    ("time,rate\n0,1\n", "1 lines below the header"),
    ("time,rate\n0,0\n1,0\n", "every rate is 0"),
    ("time,rate\n0,1\n1,\"2\n", "not CSV"),
    ("0\n-3\n", "line 2: '-3' is no whole number of milliseconds"),
    ("5\n3\n", "line 2: 3 after 5; sort by time"),
    ("", "a trace of a second or more"),
    ("t\0i\0m\0e\0,\0", "UTF-16"),
    (b"\xff\xfet\0i\0", "UTF-16"),
    (b"time,rate\n0,\xe9\n", "not UTF-8"),
])  # fmt: skip
def test_what_is_no_trace_is_told_in_one_line(tmp_path, text, message):
    with pytest.raises(InputError) as error:
        read_gain_trace(written(tmp_path, text))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_trace_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_gain_trace(tmp_path / "none.csv")
