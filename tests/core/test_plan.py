import json

import numpy as np
import pytest

from fedpace.core.errors import InputError
from fedpace.core.plan import Decision, Plan, RoundSeconds, StalenessSeconds


def plan(q=(0.25, 1.0), k=(1, 4), draws=None, beat=None, **more):
    return Plan(
        "test", np.array(["a", "b"]), Decision(np.array(q), np.array(k), draws, beat), **more
    )


def test_a_plan_survives_json_to_the_bit():
    before = plan(
        q=(1 / 3, 1.0), round_seconds=RoundSeconds(1.0, 0.9, 2.0), relative_rounds=1.5,
        gain={"uniform": 1.7}, binds={"q at 1": np.array([False, True])},
        statistics={"seconds": np.nan},
    )  # fmt: skip
    after = Plan.from_json(json.loads(json.dumps(before.to_json(), allow_nan=False)))
    assert np.array_equal(after.sampling_probability, before.sampling_probability)
    assert after.round_seconds == before.round_seconds
    assert after.binds["q at 1"].tolist() == [False, True]
    assert np.isnan(after.objective_seconds) and np.isnan(after.statistics["seconds"])
    assert after.to_json() == before.to_json()


@pytest.mark.parametrize("q", [(0.0, 1.0), (0.5, 1.1), (np.nan, 0.5), (-0.1, 0.5)])
def test_a_probability_outside_its_range_is_refused_naming_the_client(q):
    with pytest.raises(InputError, match="sampling_probability of client '[ab]'"):
        plan(q=q)


def test_a_rank_below_one_is_refused():
    with pytest.raises(InputError, match="sketch_rank of client 'a' is 0"):
        plan(k=(0, 4))


def test_with_draws_the_chance_to_be_in_a_round_is_that_of_at_least_one_draw():
    with_draws = plan(q=(0.25, 0.75), draws=2)
    np.testing.assert_allclose(with_draws.participation_probability(), [7 / 16, 15 / 16])


def test_a_beat_makes_rounds_overlap_and_what_is_predicted_of_it_survives_json():
    before = plan(
        beat=1 / 3, updates_per_second=np.array([0.1, np.nan]), band_utilisation=0.75,
        staleness_seconds=StalenessSeconds(1.5, 4.0), limit_seconds=2.5,
    )  # fmt: skip
    table = json.loads(json.dumps(before.to_json(), allow_nan=False))
    assert table["schedule"] == "overlapping" and table["beat_seconds"] == 1 / 3
    assert table["updates_per_second"] == [0.1, None] and table["limit_seconds"] == 2.5
    assert table["staleness_seconds"] == {"mean": 1.5, "p95": 4.0}
    after = Plan.from_json(table)
    assert after.schedule == "overlapping" and after.to_json() == table
    assert after.staleness_seconds == before.staleness_seconds


def test_without_a_beat_a_plan_is_synchronous_and_an_older_file_of_one_is_still_read():
    table = plan().to_json()
    assert table["schedule"] == "synchronous" and table["beat_seconds"] is None
    for name in ("schedule", "beat_seconds", "updates_per_second", "staleness_seconds",
                 "band_utilisation", "limit_seconds"):  # fmt: skip
        del table[name]
    assert Plan.from_json(table).to_json() == plan().to_json()


@pytest.mark.parametrize("beat", [0.0, -1.0, np.nan, np.inf])
def test_a_beat_that_is_no_time_is_refused(beat):
    with pytest.raises(InputError, match="beat_seconds is"):
        plan(beat=beat)
