import numpy as np
import pytest

from fedpace.core.errors import InputError
from fedpace.core.messages import ClientTask, draw_components
from fedpace.core.sketch import LEADING, RESIDUAL, SCALED, sketch_named

TASK = ClientTask(client=3, round_index=2, adapter={}, sketch_rank=3, seed=1)
R = 8


@pytest.mark.parametrize(
    ("sketch", "received", "forward_rank", "client", "server"),
    [(SCALED, 3, 3, 8 / 3, 1), (RESIDUAL, 8, 8, 1, 8 / 3), (LEADING, 3, 8, 1, 1)],
)
def test_what_each_sketch_receives_and_who_scales(sketch, received, forward_rank, client, server):
    assert sketch.received_rank([3, 8], R).tolist() == [received, 8]
    assert sketch.forward_rank(3, R) == forward_rank
    assert sketch.client_scale(3, R) == client
    assert sketch.server_scale(3, R) == server
    assert sketch.client_scale(R, R) == sketch.server_scale(R, R) == 1


def test_index_sets_are_the_drawn_ones_or_the_first():
    drawn = draw_components(1, 2, 3, R, 3)
    assert not np.array_equal(drawn, np.arange(3))
    assert np.array_equal(SCALED.components(TASK, R), drawn)
    assert np.array_equal(RESIDUAL.components(TASK, R), drawn)
    assert LEADING.components(TASK, R).tolist() == [0, 1, 2]


@pytest.mark.parametrize("sketch", [SCALED, LEADING])
def test_a_rank_beyond_the_adapters_is_refused(sketch):
    with pytest.raises(InputError, match="client 3 has sketch rank 3; the adapter's rank is 2"):
        sketch.components(TASK, 2)


def test_a_sketch_is_found_by_its_name():
    assert [sketch_named(s.name) for s in (SCALED, RESIDUAL, LEADING)] == [
        SCALED,
        RESIDUAL,
        LEADING,
    ]
    with pytest.raises(InputError, match="'random' is unknown; choose one of scaled, residual"):
        sketch_named("random")
