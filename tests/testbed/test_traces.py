import pytest

from fedpace.core.errors import InputError
from fedpace.testbed.traces import read_traces


def written(folder, text):
    path = folder / "links.csv"
    path.write_text(text)
    return path


def test_a_link_has_the_last_rate_whose_time_has_come(tmp_path):
    path = written(tmp_path, "client,time_seconds,rate_bps\n1,30,5e5\n1,10,2e6\n0,0,1e6\n")
    found = read_traces(path, 2)
    assert [found[1].at(t) for t in (0, 10, 29.9, 30)] == [None, 2e6, 2e6, 5e5]
    assert found[0].at(0) == 1e6


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("client,time,rate_bps\n0,0,1\n", "has the columns client, time, rate_bps; it needs"),
        ("", "has the columns none"),
        ("client,time_seconds,rate_bps\n0,0,1e6\n2,0,1e6\n", "line 3: client 2 is not one of 0"),
        ("client,time_seconds,rate_bps\n0,0,fast\n", "line 2: .*'fast'.* is not a client"),
        ("client,time_seconds,rate_bps\n0,-1,1e6\n", "line 2: time -1 s"),
        ("client,time_seconds,rate_bps\n0,0,0\n", "rate 0 bit/s"),
    ],
)
def test_a_wrong_file_is_told_in_one_line(tmp_path, text, told):
    with pytest.raises(InputError, match=told):
        read_traces(written(tmp_path, text), 2)
