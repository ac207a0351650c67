import gzip
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedpace.core.errors import InputError
from fedpace.core.profile import ClientProfile, Clients, System
from fedpace.wireless.channel import rate_bps, uplink
from fedpace.wireless.clients_file import read_clients, write_clients
from fedpace.wireless.population import SCENARIOS, draw_clients

FULL = """\
client_id,data_weight,step_seconds,step_seconds_per_rank,download_seconds,snr_hz,max_bandwidth_hz,\
max_rank,availability,update_second_moment,step_joules,upload_joules_per_bit,max_joules_per_round
"north, attic",3,0.5,0.01,0.2,1e7,2e6,8,0.9,2.5,4,1e-7,50
south,1,0.25,,,2e6,,,,,,,
"""


def write(folder, text, encoding="utf-8"):
    path = folder / "clients.csv"
    path.write_text(text, encoding=encoding)
    return path


def assert_same(one, other):
    assert one.columns().keys() == other.columns().keys()
    for name, column in one.columns().items():
        if name == "client_id":
            np.testing.assert_array_equal(column, other.columns()[name])
        else:
            np.testing.assert_allclose(column, other.columns()[name], rtol=4e-16, err_msg=name)


def test_every_column_is_read_and_blank_cells_are_defaults(tmp_path):
    expected = Clients.from_profiles(
        [
            ClientProfile(
                "north, attic", 3, 0.5, 0.01, 0.2, None, 1e7, 2e6, 8, 0.9, 2.5, 4, 1e-7, 50
            ),
            ClientProfile("south", 1, 0.25, snr_hz=2e6),
        ]
    )  # fmt: skip
    assert_same(read_clients(write(tmp_path, FULL)), expected)


def test_three_columns_are_enough_in_any_order(tmp_path):
    path = write(tmp_path, "step_seconds, spectral_efficiency ,data_weight\n2,1.5,1\n\n1,3,4\n")
    clients = read_clients(path)
    assert clients.client_id.tolist() == ["0", "1"]
    assert clients.data_weight.tolist() == [0.2, 0.8]
    assert clients.spectral_efficiency.tolist() == [1.5, 3.0]


def test_a_byte_order_mark_and_foreign_line_ends_do_not_matter(tmp_path):
    text = FULL.replace("\n", "\r\n")
    assert_same(read_clients(write(tmp_path, text, "utf-8-sig")),
                read_clients(write(tmp_path, FULL)))  # fmt: skip


def test_a_link_column_that_is_blank_throughout_counts_as_absent(tmp_path):
    path = write(tmp_path, "data_weight,step_seconds,snr_hz,spectral_efficiency\n1,1,,2\n1,1, ,3\n")
    assert read_clients(path).snr_hz is None


@pytest.mark.parametrize("link", ["constant", "shannon"])
def test_what_is_written_is_read_again(tmp_path, link):
    scenario = replace(SCENARIOS["cell-balanced"], link=link, small_memory_share=0.5)
    system = System(bandwidth_hz=1e6, lora_rank=8)
    names = [f'device "{n}", floor {n}' for n in range(300)]
    clients = draw_clients(scenario, np.arange(1, 301), 0, system, client_id=names)
    write_clients(clients, tmp_path / "clients.csv")
    assert_same(read_clients(tmp_path / "clients.csv"), clients)


def test_columns_at_their_defaults_are_not_written(tmp_path):
    clients = Clients.from_columns(data_weight=[1], step_seconds=[2], snr_hz=[3])
    write_clients(clients, tmp_path / "clients.csv")
    text = (tmp_path / "clients.csv").read_text()
    assert text == "client_id,data_weight,step_seconds,snr_hz\n0,1.0,2.0,3.0\n"


HEAD = "client_id,data_weight,step_seconds,spectral_efficiency,max_rank\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        (HEAD, "a header and no clients; give at least one line"),
        ("data_weight,snr_hz\n1,1\n", "line 1: column step_seconds is missing"),
        ("data_weight,step_seconds\n1,1\n",
         "line 1: column spectral_efficiency or snr_hz is missing"),
        ("data_weight,step_seconds,snr_hz,colour\n1,1,1,1\n",
         "line 1: column 'colour' is unknown; rename or remove it, known are client_id,"),
        ("data_weight,step_seconds,snr_hz,snr_hz\n1,1,1,1\n",
         "line 1: column 'snr_hz' appears twice; remove one"),
        ("data_weight,step_seconds,snr_hz,spectral_efficiency\n1,1,1,1\n",
         "line 2: the clients need exactly one link column"),
        (HEAD + "a,1,1,1,\nb,1,fast,1,\n",
         "line 3: step_seconds is 'fast'; it must be a number"),
        (HEAD + "a,1,,1,\n", "line 2: step_seconds is blank; it must be a number"),
        (HEAD + "a,1,1,1,\nb,1,1,,\n", "line 3: spectral_efficiency is blank"),
        (HEAD + "a,1,1,1,\nb,nan,1,1,\n",
         "line 3: data_weight of client 'b' is nan; it must be a finite number"),
        (HEAD + "a,1,1,1,\n\nb,0,1,1,\n",
         "line 4: data_weight of client 'b' is 0; it must be above 0"),
        (HEAD + "a,1,1,1,\nb,1,-2,1,\nc,1,-3,1,\n",
         "line 3: step_seconds of client 'b' is -2; it must not be negative"),
        (HEAD + "a,1,1,inf,\n", "line 2: spectral_efficiency of client 'a' is inf"),
        (HEAD + "a,1,1,1,4\nb,1,1,1,3.5\n", "line 3: max_rank of client 'b' is 3.5; it must be a "
         "whole number"),
        (HEAD + "a,1,1,1,0.5\n", "line 2: max_rank of client 'a' is 0.5; it must be at least 1"),
        (HEAD + "a,1,1,1,\nb,1,1,1,\na,1,1,1,\n", "line 4: client_id 'a' appears twice"),
        (HEAD + "a,1,1,1,\n ,1,1,1,\n", "line 3: client_id is blank; name every client or none"),
        (HEAD + "a,1e308,1,1,\nb,1e308,1,1,\n", "line 2: data_weight of client 'a' is 1e+308; it"),
        (HEAD + "a,1e30,1,1,\nb,1e-30,1,1,\n", "line 3: data_weight of client 'b' is 1e-30, a"),
        (HEAD + f"a,{'9' * 5000},1,1,\n", "line 2: data_weight of client 'a' is inf; it mu"),
        (HEAD + "a,1,1,1e-320,\n", "line 2: spectral_efficiency of client 'a' is 9.99989e-321; it"),
        (HEAD + "a,1,1e200,1,\n", "line 2: step_seconds of client 'a' is 1e+200; it must be at mo"),
        (HEAD + "a,1,nan,1,\n", "line 2: step_seconds of client 'a' is nan"),
        (HEAD + "a,1,1,1,nan\n", "line 2: max_rank of client 'a' is nan"),
        (HEAD + "a,1_000,1,1,\n", "line 2: data_weight is '1_000'; it must be a number"),
        (HEAD + "a,１,1,1,\n", "line 2: data_weight is '１'; it must be a number"),
        ("Data Weight,step_seconds,snr_hz\n1,1,1\n",
         "column 'Data Weight' is unknown; rename or remove it (is 'data_weight' meant?)"),
        (HEAD + "a,1,1,1\n", "line 2: 4 cells where the header has 5"),
        (HEAD + 'a,1,1,1,"2\n', "line 2: not CSV"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_place_and_remedy(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        read_clients(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (FULL.encode("utf-16"), "UTF-16 text, not CSV; save the file as UTF-8"),
        (FULL.encode("utf-16-le"), "UTF-16 text"),
        (gzip.compress(FULL.encode()), "gzip, not CSV"),
        (
            b"PK\x03\x04 xl/workbook",
            "a ZIP archive or an Excel workbook, not CSV; unpack it",
        ),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
    ],
)
def test_a_file_of_another_kind_is_named_for_what_it_is(tmp_path, content, what):
    path = tmp_path / "clients.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=what):
        read_clients(path)


def test_a_name_may_be_long(tmp_path):
    name = "x" * 200_000
    assert read_clients(write(tmp_path, HEAD + f"{name},1,1,1,\n")).client_id[0] == name


def test_the_first_bad_line_of_many_is_found(tmp_path):
    rows = [f"{n},1,1,1,\n" for n in range(3000)]
    rows[1234] = "1234,1,1,-1,\n"
    rows[2500] = "2500,-1,1,1,\n"
    with pytest.raises(InputError, match="line 1236: spectral_efficiency of client '1234' is -1"):
        read_clients(write(tmp_path, HEAD + "".join(rows)))


def test_a_file_that_is_not_there_or_not_text_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"none\.csv: cannot be read \(No such file"):
        read_clients(tmp_path / "none.csv")
    with pytest.raises(InputError, match="cannot be read"):
        read_clients(tmp_path)
    with pytest.raises(InputError, match=r"clients\.csv:3: not UTF-8"):
        read_clients(write(tmp_path, FULL.replace("south", "süd"), "latin-1"))
    clients = read_clients(write(tmp_path, FULL))
    with pytest.raises(InputError, match="cannot be written"):
        write_clients(clients, tmp_path / "no folder" / "clients.csv")


def test_the_measured_devices_on_the_page_have_uplinks_of_their_own(tmp_path):
    page = Path(__file__).parents[2] / "docs" / "file-formats.md"
    lines = page.read_text().splitlines()
    start = lines.index(
        "    client_id,data_weight,step_seconds,spectral_efficiency,max_bandwidth_hz"
    )
    path = tmp_path / "clients.csv"
    path.write_text("\n".join(line.strip() for line in lines[start : start + 3]))
    clients = read_clients(path)
    alone = rate_bps(np.minimum(1e9, clients.max_bandwidth_hz), **uplink(clients))
    assert alone.tolist() == [20e6, 5e6]
    assert clients.step_seconds.tolist() == [11.37, 170.2]
