import numpy as np
import pytest

from fedpace.core.rng import STREAMS, rng_for


def test_keys_of_different_length_do_not_collide_as_list_seeds_do():
    assert np.random.default_rng([7, 1]).random() == np.random.default_rng([7, 1, 0]).random()
    assert rng_for(7, "sketch", 1).random() != rng_for(7, "sketch", 1, 0).random()


def test_every_stream_seed_and_key_is_its_own():
    keys = ((), (0,), (1,), (0, 1))
    seeds = (0, 1, 2**32)
    draws = {rng_for(s, name, *key).random() for s in seeds for name in STREAMS for key in keys}
    assert len(draws) == 3 * len(STREAMS) * 4


def test_an_unknown_stream_is_refused():
    with pytest.raises(ValueError):
        rng_for(0, "weather")


def test_the_first_streams_keep_their_places():
    assert STREAMS[:5] == ("participation", "sketch", "batches", "fading", "population")
