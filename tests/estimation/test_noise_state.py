"""What is remembered of rounds: it survives a file, and grows with the population."""

import json

import numpy as np
import pytest

from fedpace.core.errors import InputError
from fedpace.estimation.noise_scale import noise_scale
from fedpace.estimation.noise_state import (
    NoiseState,
    grown_noise_state,
    initial_noise_state,
    observe,
)
from planning.known_noise import KnownNoise, make_record


def test_a_state_that_went_through_json_goes_on_bit_for_bit():
    world, rng = KnownNoise(), np.random.default_rng(13)
    records = list(world.rounds(np.full(50, 0.2), 20, rng))
    state = initial_noise_state(50)
    for record in records[:12]:
        state = observe(state, record, world.data_weight, 4)
    resumed = NoiseState.from_json(json.loads(json.dumps(state.to_json())))
    for record in records[12:]:
        state = observe(state, record, world.data_weight, 4)
        resumed = observe(resumed, record, world.data_weight, 4)
    assert resumed.to_json() == state.to_json()
    assert (
        noise_scale(resumed, world.data_weight).ratio == noise_scale(state, world.data_weight).ratio
    )


def test_forget_out_of_range_is_refused():
    with pytest.raises(InputError, match="forget is 1.5"):
        initial_noise_state(3, forget=1.5)


def test_what_was_seen_of_fewer_clients_is_carried_over_to_a_population_that_grew():
    """Where all updates are the same vector, every estimate is known for any data weights."""
    few, all_ = np.array([0.5, 0.3, 0.2]), np.array([0.25, 0.15, 0.1, 0.5])

    def seen(weight):
        state = initial_noise_state(len(weight))
        for index in range(12):
            same = np.ones((len(weight), 5))
            record = make_record(index, range(len(weight)), weight, same, head=2)
            state = observe(state, record, weight, 4)
        return state

    grown = grown_noise_state(seen(few), all_)
    for part in ("lora", "head", "all"):
        ours, theirs = noise_scale(grown, all_, part), noise_scale(seen(all_), all_, part)
        for name in ("v_full", "cross_product", "squared_update_norm", "ratio", "noise_fraction"):
            assert getattr(ours, name) == pytest.approx(getattr(theirs, name)), (part, name)
        assert ours.ratio == pytest.approx((all_**2).sum() / (1 - (all_**2).sum()))
        assert ours.sufficient
    before = seen(few).relative[0]
    assert grown.relative[0].observations.tolist() == [*before.observations.tolist(), 0]
    assert grown.relative[0].mean[:3].tolist() == before.mean.tolist()
    # Nothing seen yet is carried over to nothing seen yet.
    none = grown_noise_state(initial_noise_state(3), all_)
    assert none.to_json() == initial_noise_state(4).to_json()
