import socket
import threading
import time

import pytest

from fedpace.core import hub


@pytest.fixture(autouse=True)
def asked_anew(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    hub.hub_answers.cache_clear()
    yield
    hub.hub_answers.cache_clear()


def test_a_hub_at_which_nobody_answers_is_given_up_within_seconds(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr(hub, "WAIT_SECONDS", 0.3)
        began = time.monotonic()
        assert not hub.hub_answers()
        assert time.monotonic() - began < 5


@pytest.mark.parametrize("status", [b"200 OK", b"404 Not Found"])
def test_a_hub_that_answers_is_there_whatever_it_says(monkeypatch, status):
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")

        def answer():
            client, _ = server.accept()
            client.recv(4096)
            client.sendall(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n")
            client.close()

        threading.Thread(target=answer, daemon=True).start()
        assert hub.hub_answers()


@pytest.mark.parametrize("address", ["http://127.0.0.1:1", "nonsense"])
def test_no_address_no_answer(monkeypatch, address):
    monkeypatch.setenv("HF_ENDPOINT", address)
    assert not hub.hub_answers()


def test_nobody_asks_where_the_user_forbids_it(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(hub, "_ask", lambda: pytest.fail("asked"))
    assert not hub.hub_answers()


@pytest.mark.torch
def test_the_hubs_client_is_held_back_for_a_while_and_left_as_it_was(monkeypatch):
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with hub.offline(True):
        assert constants.is_offline_mode()
    assert not constants.is_offline_mode()
