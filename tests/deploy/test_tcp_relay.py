"""The paced sender, with real sockets."""

import socket
import ssl
import threading
import time
from contextlib import ExitStack, contextmanager

import httpx
import pytest

pytest.importorskip("flwr")

from deploy.processes import free_port
from fedpace.deploy.certificates import make_development_ca
from fedpace.deploy.flower_patches import TIMEOUT_VARIABLE, set_timeout
from fedpace.deploy.tcp_relay import open_relay
from fedpace.deploy.uplink_pacing import paced, unpaced

pytestmark = pytest.mark.flower


class Sink:
    """A server that keeps what comes on each connection, and when the last of it came."""

    def __init__(self, answer=b"", context=None):
        self.socket, self.answer = socket.create_server(("127.0.0.1", 0)), answer
        self.port, self.context = self.socket.getsockname()[1], context
        self.received, self.last, self.lock = [], 0.0, threading.Lock()
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self.take, args=(connection,), daemon=True).start()

    def take(self, connection):
        if self.context is not None:
            try:
                connection = self.context.wrap_socket(connection, server_side=True)
            except OSError:  # the client gave it up
                return connection.close()
        mine = bytearray()
        with self.lock:
            self.received.append(mine)
        if self.answer:
            connection.sendall(self.answer)
        with connection:
            while data := connection.recv(65536):
                with self.lock:
                    mine += data
                    self.last = time.monotonic()

    def wait_for(self, count):
        end = time.monotonic() + 30
        while sum(map(len, self.received)) < count:
            assert time.monotonic() < end
            time.sleep(0.005)


@contextmanager
def sink(**options):
    server = Sink(**options)
    try:
        yield server
    finally:
        server.socket.shutdown(socket.SHUT_RDWR)
        server.socket.close()


def send(port, data):
    connection = socket.create_connection(("127.0.0.1", port))
    threading.Thread(target=connection.sendall, args=(data,), daemon=True).start()
    return connection


@pytest.mark.parametrize("connections", [1, 3])
@pytest.mark.parametrize("rate_bps", [2e5, 8e6])
def test_what_goes_up_leaves_at_the_rate_however_many_connections_share_it(rate_bps, connections):
    count = int(rate_bps / 8 * 1.5)  # 1.5 s
    parts = [bytes([i]) * (count // connections) for i in range(connections)]
    with sink() as server, open_relay("127.0.0.1", server.port) as relay, ExitStack() as stack:
        relay.pace(rate_bps)
        began = time.monotonic()
        for part in parts:
            stack.enter_context(send(relay.port, part))
        server.wait_for(sum(map(len, parts)))
        seconds = server.last - began
    assert 8 * sum(map(len, parts)) / seconds == pytest.approx(rate_bps, rel=0.1)
    assert sorted(map(bytes, server.received)) == parts


def test_a_pause_does_not_save_up_for_a_burst():
    with sink() as server, open_relay("127.0.0.1", server.port) as relay:
        relay.pace(4e5)
        with send(relay.port, b"a") as connection:
            server.wait_for(1)
            time.sleep(1.0)
            began = time.monotonic()
            connection.sendall(b"b" * 25_000)  # half a second
            server.wait_for(25_001)
            assert server.last - began == pytest.approx(0.5, rel=0.1)


def test_the_rate_can_change_on_the_way_and_an_infinite_one_is_no_limit():
    data = bytes(2_000_000)
    with sink() as server, open_relay("127.0.0.1", server.port) as relay:
        relay.pace(8e4)  # 200 s
        with send(relay.port, data):
            server.wait_for(2000)
            relay.pace(float("inf"))
            server.wait_for(len(data))


def test_what_comes_down_is_not_paced_and_both_ends_see_the_other_close():
    answer = bytes(range(256)) * 4000
    with sink(answer=answer) as server, open_relay("127.0.0.1", server.port) as relay:
        relay.pace(1.0)
        with socket.create_connection(("127.0.0.1", relay.port)) as connection:
            found = bytearray()
            while len(found) < len(answer):
                found += connection.recv(65536)
            assert found == answer


def test_where_no_server_is_the_connection_ends():
    with (
        open_relay("127.0.0.1", free_port()) as relay,
        socket.create_connection(("127.0.0.1", relay.port), 5.0) as connection,
    ):
        assert connection.recv(1) == b""


def test_a_node_with_tls_is_led_through_the_relay_and_still_checks_whom_it_meets(
    tmp_path, monkeypatch
):
    """The name in the certificate is the server's, not the relay's; other names do not pass."""
    certificates = make_development_ca(tmp_path, ["localhost"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.certificate, certificates.key)
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"
    trusted = ssl.create_default_context(cafile=certificates.ca)
    with (
        sink(answer=answer, context=context) as server,
        paced(f"localhost:{server.port}", True) as link,
    ):
        assert link.server == f"localhost:{server.port}"
        for name, value in link.environment.items():
            monkeypatch.setenv(name, value)
        link.pace(4e5, 50_000)
        with httpx.Client(verify=trusted) as client:
            url, began = f"https://{link.server}", time.monotonic()
            assert client.post(url, content=bytes(50_000)).text == "hi"
            server.wait_for(50_000)
            assert server.last - began == pytest.approx(1.0, rel=0.15)  # and a handshake
            with pytest.raises(httpx.ConnectError, match="certificate"):
                client.post(url.replace("localhost", "elsewhere"))


def test_without_control_the_node_connects_as_ever():
    with unpaced("server.lan:8080", True) as link:
        assert (link.server, link.environment) == ("server.lan:8080", {})
        link.pace(1.0, 1)


@pytest.fixture
def client():
    """Flower's, as it was before and is after the test."""
    from flwr.supercore.protobuf.client import ProtobufClient

    defaults, ask = dict(ProtobufClient.__init__.__kwdefaults__), ProtobufClient._unary_unary
    yield ProtobufClient
    ProtobufClient.__init__.__kwdefaults__.update(defaults)
    ProtobufClient._unary_unary = ask


def test_a_paced_node_waits_longer_for_answers(client, monkeypatch):
    set_timeout()
    assert client("http://localhost")._client.timeout.read == 30.0
    monkeypatch.setenv(TIMEOUT_VARIABLE, "700")
    set_timeout()
    assert client("http://localhost")._client.timeout.read == 700.0


def test_a_node_waits_for_an_answer_as_long_as_its_bytes_may_take_to_leave(client, monkeypatch):
    from flwr.proto.message_pb2 import PushObjectRequest, PushObjectResponse

    asked = []

    def respond(self, request, **options):
        asked.append(request.extensions["timeout"]["read"])
        return httpx.Response(200, content=b"", request=request)

    monkeypatch.setattr(httpx.Client, "send", respond)
    set_timeout()
    for size in (0, 300_000):
        client("http://localhost")._unary_unary(
            path="x", rpc_method="x", request=PushObjectRequest(object_content=bytes(size)),
            response_type=PushObjectResponse,
        )  # fmt: skip
    assert asked == pytest.approx([30, 330], rel=1e-3)
