import json
from dataclasses import replace

import numpy as np
import pytest

from fedpace.core.errors import InputError
from fedpace.core.plan import Decision, Plan, RoundSeconds, StalenessSeconds
from fedpace.core.record import ParticipantRecord, RoundRecord
from fedpace.core.target import Target
from fedpace.reporting.metrics import (
    age_seconds,
    curve,
    expected_participation,
    overlapped,
    participation_counts,
    predicted_seconds,
    rounds_in_force,
    speedups,
    staleness,
    summarise,
    time_split,
    time_to_target,
    traffic_bits,
)

TARGET = Target("accuracy", 0.6)


def person(client, start=1.0, upload=1.0):
    return ParticipantRecord(client, 4, 1.0, 10, 20, start, upload, 1e6, 0.5, 0.1, 0.2)


def record(index, clock, people=(), seconds=1.0, **evaluation):
    return RoundRecord(
        "ours", index, clock, seconds, tuple(people), 160 * len(people), 80 * len(people),
        0.5 if people else None, 0.1, 0.1, evaluation or None,
    )  # fmt: skip


def plan(q, mean=2.0, **kind):
    seconds = None if mean is None else RoundSeconds(mean, mean, mean)
    ids = np.arange(len(q)).astype(str)
    return Plan(
        "exact", ids, Decision(np.array(q), np.full(len(q), 4), **kind), round_seconds=seconds
    )


def test_the_clock_is_read_at_the_first_evaluation_that_reaches_the_target():
    records = [
        record(0, 2.0, accuracy=0.5), record(1, 3.0), record(2, 5.0, accuracy=0.61),
        record(3, 6.0, accuracy=0.55),
    ]  # fmt: skip
    assert time_to_target(records, TARGET) == 5.0
    assert time_to_target(records[:2], TARGET) is None


def test_a_curve_starts_from_the_initial_evaluation_and_skips_rounds_without_one():
    records = [record(0, 2.0, loss=1.5), record(1, 3.0), record(2, 5.0, loss=1.0)]
    clock, loss = curve(records, "loss", {"loss": 2.0})
    assert clock.tolist() == [0.0, 2.0, 5.0]
    assert loss.tolist() == [2.0, 1.5, 1.0]
    assert [len(x) for x in curve(records, "accuracy")] == [0, 0]


def test_a_client_counts_once_in_each_round_it_took_part_in():
    records = [record(0, 1.0, [person(0), person(2)]), record(1, 2.0), record(2, 3.0, [person(2)])]
    assert participation_counts(records, 4).tolist() == [1, 0, 2, 0]


def test_each_plan_counts_for_the_rounds_it_was_in_force():
    plans = [(0, plan([0.5, 1.0])), (4, plan([0.1, 0.2])), (90, plan([1.0, 1.0]))]
    assert rounds_in_force(plans, 10) == [4, 6, 0]
    expected = expected_participation(plans, 10, np.array([1.0, 0.5]))
    np.testing.assert_allclose(expected, [4 * 0.5 + 6 * 0.1, 0.5 * (4 * 1.0 + 6 * 0.2)])


def test_of_beats_it_is_what_the_queue_is_expected_to_bring():
    beats = replace(
        plan([0.5, 1.0], None, beat_seconds=2.0), updates_per_second=np.array([0.1, 0.4])
    )
    expected = expected_participation([(0, beats)], 10, np.array([1.0, 0.5]))
    np.testing.assert_allclose(expected, [2.0, 8.0])


def test_updates_are_late_by_the_steps_since_their_adapter():
    late = [replace(person(n), started_round=start) for n, start in ((0, 2), (1, 0), (2, 1))]
    records = [
        replace(record(0, 1.0), underway=2), replace(record(1, 2.0), underway=0),
        replace(record(2, 3.0, late), underway=0),
    ]  # fmt: skip
    assert staleness(records).tolist() == [0, 2, 1]
    assert staleness([record(0, 1.0, [person(0)])]).tolist() == [], "it does not say"
    assert overlapped(records[1:2]) and not overlapped([record(0, 1.0)])
    beats = plan([0.5], None, beat_seconds=1.0)
    for made, schedule in ((beats, "overlapping"), (plan([0.5]), "asynchronous")):
        entry = summarise(records, [(0, made)], None)
        assert entry["schedule"] == schedule
        assert entry["mean_staleness"] == 1.0
        assert entry["p95_staleness"] == pytest.approx(1.9)
        assert entry["mean_underway"] == pytest.approx(2 / 3)
    assert age_seconds(records).tolist() == [1.0, 3.0, 2.0]
    told = replace(
        beats, updates_per_second=np.array([0.4, 0.8]), staleness_seconds=StalenessSeconds(2.5, 4.0)
    )
    entry = summarise(records, [(0, told)], None)
    assert (entry["counted_updates"], entry["mean_age_seconds"]) == (3, 2.0)
    assert entry["predicted_updates"] == pytest.approx(3 * 1.0 * 1.2)
    assert entry["predicted_age_seconds"] == pytest.approx(2.5)
    assert summarise([record(0, 1.0)], [(0, plan([0.5]))], None)["schedule"] == "synchronous"


def test_expected_participation_is_the_mean_of_what_sampling_does():
    draws = plan([0.2, 0.3, 0.5], draws=2)
    rng = np.random.default_rng(0)
    drawn = rng.choice(3, size=(20000, 2), p=draws.sampling_probability)
    share = [np.mean(np.any(drawn == n, axis=1)) for n in range(3)]
    expected = expected_participation([(0, draws)], 1, np.ones(3))
    np.testing.assert_allclose(expected, share, atol=0.015)


def test_where_all_finish_together_nobody_waits():
    people = [person(0, start=1.0, upload=4.0), person(1, start=3.0, upload=2.0)]
    split = time_split([record(0, 5.5, people, seconds=5.5)])
    assert (split.compute_seconds, split.upload_seconds) == (2.0, 3.0)
    assert (split.waiting_seconds, split.overhead_seconds) == (0.0, 0.5)


def test_who_finishes_early_waits_for_the_last():
    people = [person(0, start=1.0, upload=1.0), person(1, start=3.0, upload=3.0)]
    assert time_split([record(0, 6.0, people)]).waiting_seconds == 2.0


def test_the_parts_of_the_time_split_sum_to_the_clock():
    rng = np.random.default_rng(1)
    records, clock = [], 0.0
    for i in range(30):
        people = [person(n, *rng.exponential(size=2)) for n in range(rng.integers(0, 5))]
        clock += max((p.start_seconds + p.upload_seconds for p in people), default=0) + 0.3
        records.append(record(i, clock, people))
    split = time_split(records)
    parts = [split.compute_seconds, split.upload_seconds, split.waiting_seconds]
    assert sum(parts) + split.overhead_seconds == pytest.approx(clock)
    assert split.overhead_seconds == pytest.approx(30 * 0.3)
    assert min(parts) >= 0


def test_a_renewed_plan_is_predicted_piece_by_piece():
    plans = [(0, plan([0.5], mean=2.0)), (3, plan([0.5], mean=10.0))]
    assert predicted_seconds(plans, 5) == 3 * 2.0 + 2 * 10.0
    assert predicted_seconds([(0, plan([0.5], mean=None))], 5) is None


def test_a_summary_holds_the_numbers_of_its_records():
    records = [
        record(0, 2.0, [person(0), person(1)], seconds=2.0, accuracy=0.3, loss=1.4),
        record(1, 5.0, [person(1)], seconds=3.0, accuracy=0.7, loss=0.9),
    ]
    plans = [(0, plan([0.5, 0.5], mean=4.0))]
    entry = summarise(records, plans, TARGET, {"loss": 2.0, "accuracy": 0.1})
    assert entry["time_to_target_seconds"] == 5.0 and entry["rounds_to_target"] == 2
    assert (entry["rounds"], entry["clock_seconds"], entry["mean_round_seconds"]) == (2, 5.0, 2.5)
    assert (entry["final_accuracy"], entry["final_loss"]) == (0.7, 0.9)
    assert (entry["initial_accuracy"], entry["initial_loss"]) == (0.1, 2.0)
    assert (entry["upload_bits"], entry["download_bits"]) == traffic_bits(records) == (480, 240)
    assert entry["mean_participants"] == 1.5
    assert (entry["predicted_round_seconds"], entry["predicted_seconds"]) == (4.0, 8.0)
    assert json.loads(json.dumps(entry, allow_nan=False)) == entry


def test_no_time_to_a_target_that_held_before_training_is_stated():
    """Runs of before such targets were refused are gone on with."""
    records = [record(0, 2.0, [person(0)], accuracy=0.9, loss=0.4)]
    good = summarise(records, [(0, plan([1.0]))], TARGET, {"loss": 2.0, "accuracy": 0.1})
    held = summarise(records, [(0, plan([1.0]))], TARGET, {"loss": 0.5, "accuracy": 1.0})
    assert (good["time_to_target_seconds"], held["time_to_target_seconds"]) == (2.0, None)


def test_a_diverged_run_has_a_summary_without_nan():
    entry = summarise([record(0, 2.0, loss=float("nan"))], [(0, plan([0.5]))], None)
    assert entry["final_loss"] is None and entry["time_to_target_seconds"] is None
    assert "final_accuracy" not in entry


def test_a_diverged_record_survives_the_file():
    before = record(0, 2.0, [person(0, upload=float("nan"))], loss=float("nan"))
    after = RoundRecord.from_json(json.loads(json.dumps(before.to_json(), allow_nan=False)))
    assert np.isnan(after.evaluation["loss"])
    assert np.isnan(curve([after], "loss")[1]).all()


def test_a_summary_of_nothing_is_refused():
    with pytest.raises(InputError, match="no rounds"):
        summarise([], [(0, plan([0.5]))], TARGET)


def test_speedups_are_times_over_the_first_method():
    assert speedups({"a": 10.0, "b": 25.0, "c": None}) == {"a": 1.0, "b": 2.5, "c": None}
    assert speedups({"a": None, "b": 25.0}) == {"a": None, "b": None}
    assert speedups({}) == {}
