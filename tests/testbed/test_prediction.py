import json

import numpy as np
import pytest

from fedpace.core.errors import InputError
from fedpace.core.record import ParticipantRecord, RoundRecord
from fedpace.core.times import ClientTimes, RoundTimes
from fedpace.reporting.measured import errors, measured_times
from fedpace.run_folder.measured import add_times, read_times
from fedpace.testbed.prediction import predicted, prediction_table, round_times
from fedpace.testbed.run import network_in
from fedpace.testbed.shaper import Passage
from fedpace.wireless.clients_file import write_clients
from toy_work import toy_experiment, toy_network


def participant(client, upload_bytes):
    return ParticipantRecord(
        client=client, sketch_rank=2, weight=1.0, download_bytes=500, upload_bytes=upload_bytes,
        start_seconds=0.0, upload_seconds=0.0, bandwidth_hz=0.0, train_loss=0.0,
        lora_squared_norm=0.0, head_squared_norm=0.0,
    )  # fmt: skip


def record(index, clients, seconds, missing=()):
    return RoundRecord(
        method="uniform", round=index, clock_seconds=0.0, round_seconds=seconds,
        participants=tuple(participant(n, 1000 + 10 * n) for n in clients), upload_bits=0,
        download_bits=0, train_loss=None, lora_squared_norm=0.0, head_squared_norm=0.0,
        missing=missing,
    )  # fmt: skip


def passage(client, index, at):
    return Passage(
        client, index, 1e3, at, at + 0.1, at + 0.5, at + 1.5, at + 1.6, 900, 950 + int(at)
    )


@pytest.fixture
def folder(tmp_path):
    write_clients(toy_network(toy_experiment(), [1, 1, 1]).clients, tmp_path / "clients.csv")
    return tmp_path


def test_every_record_finds_its_own_passages_also_after_one_that_nobody_answered(folder):
    network = network_in(toy_experiment(), folder)
    seen, found = [], []
    for one, passages in (
        (record(0, [0, 2], 2.0), [passage(0, 0, 10.0), passage(2, 0, 10.0)]),
        (record(1, [], 1.0, missing=(1,)), [passage(1, 1, 12.0)]),
        (record(2, [1], 3.0, missing=(0,)), [passage(0, 2, 14.0), passage(1, 2, 15.0)]),
        (record(0, [1], 4.0), [passage(1, 0, 20.0)]),  # of the next method
        (record(0, [0], 5.0), [passage(0, 0, 30.5)]),  # and of one that plays client 0 again
    ):
        seen += passages
        if one.participants:
            found.append(round_times(network, 0, one, seen))
    assert [(each.round, [c.client for c in each.clients]) for each in found] == [
        (0, [0, 2]), (2, [1]), (0, [1]), (0, [0]),
    ]  # fmt: skip
    assert [c.finish for each in found for c in each.clients] == pytest.approx([1.6] * 5)
    assert [c.wire_bytes for each in found for c in each.clients] == [960, 960, 965, 970, 980]
    json.dumps([each.to_json() for each in found], allow_nan=False)


def test_what_is_predicted_is_what_the_virtual_clock_charges(folder):
    """The same people, bits and rule by `wireless.network.charge`."""
    from dataclasses import replace

    from fedpace.wireless.network import charge

    experiment = toy_experiment(network={"bandwidth_hz": 1e4, "allocation": "equal-share"})
    network, one = network_in(experiment, folder), record(3, [0, 1, 2], 1.0)
    start, finish = predicted(network, 0, one)
    bits = 8.0 * np.array([p.upload_bytes for p in one.participants])
    who, rank = np.arange(3), np.full(3, 2)
    down = 8.0 * np.array([p.download_bytes for p in one.participants])
    expected, share = charge(network, 0, 3, who, rank, bits, down)
    assert start == pytest.approx(expected, rel=1e-12)
    assert finish == pytest.approx(share.finish_seconds, rel=1e-12)
    slow = replace(network, system=replace(network.system, downlink_bps=1000.0))
    assert predicted(slow, 0, one)[0] == pytest.approx(start + 4.0)


def times(index, transfer, measured, method="uniform"):
    client = ClientTimes(0, 1e3, 0.1, transfer, 0.1, 0.2, measured, measured, 1, 1, 0.0)
    other = ClientTimes(1, 1e3, 0.1, transfer, 0.1, 0.2, measured - 0.5, measured, 1, 1, 0.25)
    return RoundTimes(method, index, transfer + 1.0, transfer, measured, (client, other))


def test_errors_are_of_what_was_known_before_a_round():
    rounds = [times(0, 4.0, 6.0), times(1, 2.0, 4.0), times(2, 6.0, 9.0)]
    found = errors(rounds)
    assert found["median_error"] == pytest.approx(np.median([1 / 6, 1 / 4, 2 / 9]))
    assert found["median_error_learned"] == pytest.approx(np.median([2 / 6, 0.0, 1 / 9]))
    assert found["median_spread"] == pytest.approx(0.5 / 6)
    assert found["late"] == 0.5
    assert prediction_table(rounds).row_count == 1


def test_the_figure_has_a_point_for_each_round_and_for_each_client():
    made = measured_times([times(0, 4.0, 6.0), times(1, 2.0, 4.0), times(0, 3.0, 4.5, "full")])
    drawn = [[tuple(line.get_xydata()[0]) for line in ax.lines if line.get_marker() == "."]
             for ax in made.axes]  # fmt: skip
    counts = [[len(line.get_xydata()) for line in ax.lines if line.get_marker() == "."]
              for ax in made.axes]  # fmt: skip
    assert counts == [[2, 1], [4, 2]]
    assert drawn == [[(5.0, 6.0), (4.0, 4.5)], [(4.0, 6.0), (3.0, 4.5)]]


def test_a_round_that_is_played_again_replaces_itself_and_what_follows_of_its_method(tmp_path):
    for one in (times(0, 4.0, 6.0, "full"), times(0, 4.0, 6.0), times(1, 2.0, 4.0),
                times(2, 2.0, 4.0)):  # fmt: skip
        add_times(tmp_path, one)
    assert [t.round for t in read_times(tmp_path)] == [0, 0, 1, 2]
    with (tmp_path / "testbed.jsonl").open("a") as file:
        file.write('{"method": "uni')  # killed here
    add_times(tmp_path, again := times(1, 9.0, 9.5))
    assert read_times(tmp_path) == [times(0, 4.0, 6.0, "full"), times(0, 4.0, 6.0), again]


def test_a_damaged_line_is_told_with_its_place(tmp_path):
    (tmp_path / "testbed.jsonl").write_text('{"method": "full"}\n')
    with pytest.raises(InputError, match=r"testbed\.jsonl line 1 is not what fedpace testbed"):
        read_times(tmp_path)
