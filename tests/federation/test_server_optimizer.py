import numpy as np
import pytest

from fedpace.core.errors import InputError
from fedpace.federation.server_optimizer import make_server_optimizer


def test_sgd_at_rate_one_adds_the_update():
    optimizer = make_server_optimizer("sgd", 1.0)
    adapter = {"w": np.array([1.0, 2.0], dtype=np.float32)}
    moved, _ = optimizer.step(adapter, {"w": np.array([0.5, -1.0], dtype=np.float32)}, {})
    assert moved["w"].tolist() == [1.5, 1.0]
    assert adapter["w"].tolist() == [1.0, 2.0]


@pytest.mark.torch
def test_adam_is_torchs_adam_on_the_negative_update():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    start = rng.normal(size=(3, 4)).astype(np.float32)
    reference = torch.nn.Parameter(torch.tensor(start))
    theirs = torch.optim.Adam([reference], lr=0.02, betas=(0.9, 0.99), eps=1e-8)
    optimizer = make_server_optimizer("adam", 0.02)
    adapter = {"w": start}
    state = optimizer.init(adapter)
    for _ in range(12):
        update = rng.normal(size=start.shape).astype(np.float32)
        reference.grad = torch.tensor(-update)
        theirs.step()
        adapter, state = optimizer.step(adapter, {"w": update}, state)
    np.testing.assert_allclose(adapter["w"], reference.detach().numpy(), rtol=1e-5, atol=1e-6)


def test_an_unknown_optimizer_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match="'sgd' or 'adam'"):
        make_server_optimizer("adagrad", 1.0)
