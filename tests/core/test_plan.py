import json

import numpy as np
import pytest

from fedpace.core.errors import InputError
from fedpace.core.plan import Plan, RoundSeconds


def plan(q=(0.25, 1.0), k=(1, 4), **more):
    return Plan("test", np.array(["a", "b"]), np.array(q), np.array(k), **more)


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
