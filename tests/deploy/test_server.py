"""The port of `fedpace serve`, and what it refuses before it waits for clients."""

import socket
import threading

import pytest

pytest.importorskip("flwr")

from fedpace.core.errors import InputError
from fedpace.deploy import own_server
from fedpace.experiment.config import load_experiment

pytestmark = pytest.mark.flower


def test_a_port_that_is_about_to_be_free_is_waited_for():
    """As that of a server that was killed, whose Flower process ends a moment after it."""
    held = socket.create_server(("127.0.0.1", 0))
    port = held.getsockname()[1]
    threading.Timer(0.5, held.close).start()
    own_server._claim("127.0.0.1", port)


def test_a_port_that_stays_taken_is_an_error(monkeypatch):
    monkeypatch.setattr(own_server, "CLAIM_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        with pytest.raises(InputError, match=rf"port {port} .*choose another --port"):
            own_server._claim("127.0.0.1", port)


@pytest.mark.torch
def test_an_adapter_that_devices_do_not_have_is_no_start():
    from fedpace.deploy import server

    experiment = load_experiment(None, ["lora.start_from=somewhere"])
    with pytest.raises(InputError, match="start_from is for `fedpace run`"):
        server._site(*[None] * 10, experiment)
