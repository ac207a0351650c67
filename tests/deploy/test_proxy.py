"""The proxy with a stand-in for Flower's server behind it."""

import math
import re
import socket
import subprocess
import sys
import time
from base64 import b64encode
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

pytest.importorskip("flwr")

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_ssh_private_key,
)
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message
from flwr.supercore.protobuf.translation import PROTOBUF_REQUEST_TYPES

from deploy.processes import free_port
from fedpace.core.errors import InputError, RunError
from fedpace.deploy import secure_server
from fedpace.deploy.fleet_guard import (
    MEMORY_SECONDS,
    Fault,
    ReplayMemory,
    caller_fault,
    clock_fault,
    push_fault,
    signed_before,
)
from fedpace.deploy.keys import add_key, make_key, read_public_key, revoke_key
from fedpace.deploy.proxy import FLEET_CALLS, KNOCK, fleet_proxy

ORDER_P256 = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
KEY = ec.generate_private_key(ec.SECP256R1())


def signature():
    return KEY.sign(b"now", ec.ECDSA(hashes.SHA256()))


def pem(key=KEY):
    return public_key_to_bytes(key.public_key())


def signed(key=KEY, seconds=0.0, **changes):
    """The headers of a call, signed so many seconds from now."""
    timestamp = (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()
    headers = {
        "flwr-public-key": b64encode(pem(key)).decode(),
        "flwr-timestamp": timestamp,
        "flwr-signature": b64encode(sign_message(key, timestamp.encode())).decode(),
    }
    return {**headers, **{name.replace("_", "-"): value for name, value in changes.items()}}


def raw(headers):
    return [(n.encode(), v.encode()) for n, v in headers.items()]


def judged(headers, names=None, replays=None):
    names = {pem(): "one"} if names is None else names
    replays = ReplayMemory() if replays is None else replays
    return caller_fault(headers, names, replays, time.time(), 0.0)


def test_who_calls_is_known_from_the_headers_alone():
    assert judged(raw(signed())) == "one"
    stranger = ec.generate_private_key(ec.SECP384R1())
    assert judged(raw(signed(stranger))) == Fault(401, "its key is not among those that may join")
    forged = {**signed(), "flwr-public-key": signed(stranger)["flwr-public-key"]}
    both = {pem(): "one", pem(stranger): "two"}
    assert judged(raw(forged), both) == Fault(401, "its signature is not of its key", "two")
    for name in ("flwr-public-key", "flwr-timestamp", "flwr-signature"):
        for value in ("", "!", "\u00e9", "9999-99-99"):
            assert isinstance(judged(raw({**signed(), name: value})), Fault)
        without = {n: v for n, v in signed().items() if n != name}
        assert judged(raw(without)).status == 401


@pytest.mark.parametrize(
    "name", ["flwr-signature", "flwr-public-key", "flwr-timestamp", "content-type", "flwr-new"]
)
def test_a_header_that_is_there_twice_is_refused(name):
    call = signed(flwr_new="1", content_type="application/protobuf")
    twice = [*raw(call), (name.title().encode(), call[name].encode())]
    assert judged(twice) == Fault(400, f"the header {name} is there 2 times")


def test_a_replay_with_a_second_signature_behind_the_first_is_refused():
    """One end reads the first of two, the other the last."""
    replays, recorded = ReplayMemory(), signed()
    assert judged(raw(recorded), replays=replays) == "one"
    fresh = ("flwr-signature", signed()["flwr-signature"])
    for order in ([fresh, *recorded.items()], [*recorded.items(), fresh]):
        assert judged([(n.encode(), v.encode()) for n, v in order], replays=replays).status == 400
    assert judged(raw(recorded), replays=replays).reason == "a signature that was used before"


def test_a_clock_that_is_off_is_told_by_how_much():
    assert clock_fault(0.0) is None and clock_fault(4.9) is None and clock_fault(-300.0) is None
    assert "clock is 20 s ahead of the server's" in judged(raw(signed(seconds=20.0))).reason
    assert "clock is 86400 s behind the server's" in judged(raw(signed(seconds=-86400.0))).reason
    assert "clock is 310 s behind the server's" in judged(raw(signed(seconds=-310.0))).reason
    assert judged(raw(signed(seconds=-86400.0))).client == "one"


def test_the_open_calls_are_those_of_flowers_clients():
    calls = {p.removeprefix("/v1/fleet/") for _, p in PROTOBUF_REQUEST_TYPES if "/fleet/" in p}
    assert calls == FLEET_CALLS


def test_a_signature_counts_once_also_in_its_other_form():
    memory, used = ReplayMemory(), signature()
    r, s = decode_dss_signature(used)
    twin = encode_dss_signature(r, ORDER_P256 - s)
    KEY.public_key().verify(twin, b"now", ec.ECDSA(hashes.SHA256()))  # it would pass at Flower's
    assert memory.fault(used, 0.0) is None
    assert memory.fault(signature(), 1.0) is None
    for again in (used, twin):
        fault = memory.fault(again, MEMORY_SECONDS - 1)
        assert fault == "a signature that was used before"


def test_signatures_are_forgotten_when_flower_would_not_take_them_any_more():
    memory = ReplayMemory()
    for second in range(1000):
        assert memory.fault(signature(), float(second)) is None
    assert len(memory) <= MEMORY_SECONDS + 1


@pytest.mark.parametrize("data", [b"", b"!", b"no signature"])
def test_what_is_no_signature_is_refused(data):
    assert ReplayMemory().fault(data, 0.0) == "no signature"


def pushed(node, source, target, reply_to):
    request = PushMessagesRequest()
    request.node.node_id = node
    message = request.messages_list.add()
    message.metadata.src_node_id = source
    message.metadata.dst_node_id = target
    message.metadata.reply_to_message_id = reply_to
    return request.SerializeToString()


def test_a_client_may_answer_the_server_for_itself_and_push_nothing_else():
    assert push_fault(pushed(7, 7, 1, "task")) is None
    assert push_fault(pushed(7, 8, 1, "task")) == "node 7 sends as node 8"
    assert push_fault(pushed(7, 1, 8, "")) == "node 7 sends as node 1"
    assert push_fault(pushed(7, 7, 8, "task")) == "node 7 sends what is no answer to the server"
    assert push_fault(pushed(7, 7, 1, "")) == "node 7 sends what is no answer to the server"
    assert push_fault(b"\xff") == "no protobuf message"


STAND_IN = """
import sys
import uvicorn

async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    total, more = 0, True
    while more:
        event = await receive()
        total += len(event.get("body", b""))
        more = event.get("more_body", False)
    names = ",".join(sorted(n.decode() for n, _ in scope["headers"]))
    await send({"type": "http.response.start", "status": 200, "headers": [
        (b"content-type", b"application/protobuf"), (b"flwr-total", str(total).encode()),
        (b"flwr-path", scope["raw_path"]), (b"flwr-names", names.encode()), (b"x-inner", b"1")]})
    piece = bytes(2**20)
    for _ in range(total // 2**20):
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})

uvicorn.run(app, port=int(sys.argv[1]), log_level="warning")
"""


@contextmanager
def proxy(tmp_path, *, upstream=True, **options):
    inner, outer, keys = free_port(), free_port(), tmp_path / "keys"
    add_key(keys, "one", KEY.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
            .decode())  # fmt: skip
    with (tmp_path / "proxy.log").open("wb") as log:
        stand_in = subprocess.Popen([sys.executable, "-c", STAND_IN, str(inner)])
        door = fleet_proxy(
            "127.0.0.1", outer, f"http://127.0.0.1:{inner}", None, keys, log=log, **options
        )
        try:
            for _ in range(200):
                try:
                    socket.create_connection(("127.0.0.1", inner)).close()
                    break
                except OSError:
                    time.sleep(0.05)
            if not upstream:
                stand_in.terminate()
                stand_in.wait()
            with httpx.Client(base_url=f"http://127.0.0.1:{outer}", timeout=60) as client:
                yield door, client
        finally:
            door.stdin.close()
            assert door.wait(20) == 0
            stand_in.terminate()
            stand_in.wait()


def peak_bytes(process):
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
    return int(found.group(1)) * 1024


pieces = 100


def large():
    for _ in range(pieces):
        yield bytes(2**20)


@pytest.mark.slow
@pytest.mark.flower
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
@pytest.mark.parametrize("length_known", [True, False])
def test_large_bodies_stream_both_ways_and_are_not_held(length_known, tmp_path):
    with proxy(tmp_path) as (door, client):
        small = client.post("/v1/fleet/get-run", headers=signed())
        assert small.status_code == 200
        before = peak_bytes(door)
        headers = signed()
        if length_known:
            headers["content-length"] = str(pieces * 2**20)
        answer = client.post("/v1/fleet/push-object", headers=headers, content=large())
        assert answer.status_code == 200
        assert answer.headers["flwr-total"] == str(pieces * 2**20)
        assert len(answer.content) == pieces * 2**20
        assert peak_bytes(door) - before < 16 * 2**20


@pytest.mark.slow
@pytest.mark.flower
def test_what_passes_and_what_does_not(tmp_path):
    with proxy(tmp_path, max_body_bytes=1000) as (_, client):

        def call(name, body=b"", **headers):
            return client.post(
                f"/v1/fleet/{name}", content=body,
                headers={**signed(), **headers},
            )  # fmt: skip

        odd = {"authorization": "x", "x-forwarded-for": "6.6.6.6", "cookie": "x", "flwr-new": "1"}
        answer = call("get-run", b"x" * 1000, **odd)
        assert answer.headers["flwr-path"] == "/v1/fleet/get-run"
        assert {"flwr-new", "flwr-signature"} <= set(answer.headers["flwr-names"].split(","))
        assert not {"authorization", "cookie"} & set(answer.headers["flwr-names"].split(","))
        assert "x-inner" not in answer.headers and "server" not in answer.headers
        assert call("get-run", b"x" * 1001).status_code == 413
        chunked = client.post("/v1/fleet/get-run", content=iter([b"x" * 600] * 2),
                              headers=signed())  # fmt: skip
        assert chunked.status_code == 413
        assert call("push-messages", pushed(7, 7, 1, "task")).status_code == 200
        assert call("push-messages", pushed(7, 1, 8, "")).status_code == 403
        for name in ("start-run", "get-run/", "", "get-run%2Fx", "%67et-runs"):
            assert call(name).status_code == 404
        assert client.post("/v1/fleet/get-run").status_code == 401
        once = signed()
        codes = [client.post("/v1/fleet/get-run", headers=once).status_code for _ in range(2)]
        assert codes == [200, 401]
        with socket.create_connection((client.base_url.host, client.base_url.port)) as broken:
            broken.sendall(
                b"POST /v1/fleet/push-object HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n"
                + b"".join(n + b": " + v + b"\r\n" for n, v in raw(signed()))
                + b"\r\nhalf"
            )
            time.sleep(0.5)
        assert call("get-run").status_code == 200
    log = (tmp_path / "proxy.log").read_text()
    assert "refused /v1/fleet/push-messages from 127.0.0.1: node 7 sends as node 1" in log
    assert "refused /v1/fleet/push-object from 127.0.0.1: the connection broke off" in log
    assert "Traceback" not in log


@pytest.mark.slow
@pytest.mark.flower
def test_a_key_counts_from_the_call_after_it_was_added_until_it_is_revoked(tmp_path):
    with proxy(tmp_path) as (_, client):
        keys = tmp_path / "keys"
        add_key(keys, "late", read_public_key(make_key(keys, "late")))
        late = load_ssh_private_key((keys / "late").read_bytes(), None)

        def call():
            return client.post("/v1/fleet/get-run", headers=signed(late))

        def knock(**changes):
            return client.post(KNOCK, headers=signed(late, **changes)).json()

        assert call().status_code == 200
        assert knock() == {"known": True, "fault": ""}
        assert "20 s ahead" in knock(seconds=20.0)["fault"] and knock(seconds=20.0)["known"]
        revoke_key(keys, "late")
        assert call().status_code == 401
        assert not knock()["known"]
        (keys / "authorized_keys").write_text("nonsense")
        assert client.post("/v1/fleet/get-run", headers=signed()).status_code == 200  # as before


@pytest.mark.slow
@pytest.mark.flower
def test_what_one_client_has_on_its_way_is_bounded_in_all(tmp_path):
    with proxy(tmp_path, max_body_bytes=1_000_000) as (door, client), ExitStack() as stack:
        address = client.base_url.host, client.base_url.port
        answers = []
        for _ in range(3):
            sender = stack.enter_context(socket.create_connection(address, 10))
            sender.sendall(
                b"POST /v1/fleet/push-object HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n"
                + b"".join(n + b": " + v + b"\r\n" for n, v in raw(signed()))
                + b"\r\n"
                + bytes(450_000)
            )
            time.sleep(0.5)
            sender.settimeout(1.0)
            try:
                answers.append(sender.recv(12))
            except TimeoutError:
                answers.append(b"")  # it waits for the rest
        assert answers == [b"", b"", b"HTTP/1.1 413"]


@pytest.mark.slow
@pytest.mark.flower
def test_a_server_that_is_down_is_an_answer_that_clients_wait_out(tmp_path):
    with proxy(tmp_path, upstream=False) as (_, client):
        answer = client.post("/v1/fleet/get-run", headers=signed())
        assert answer.status_code == 503  # Flower's clients try again after 502, 503 and 504


@pytest.mark.slow
@pytest.mark.flower
def test_the_proxy_ends_with_the_process_that_started_it(tmp_path):
    code = (
        "import os, sys\n"
        "from fedpace.deploy.proxy import fleet_proxy\n"
        f"address = '127.0.0.1', {(port := free_port())}, 'http://127.0.0.1:1'\n"
        "door = fleet_proxy(*address, None, '.')\n"
        "print(door.pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        pid = int(parent.stdout.readline())
        answer = httpx.post(f"http://127.0.0.1:{port}/v1/control/start-run", timeout=30)
        assert answer.status_code == 404
        parent.kill()
    end = time.monotonic() + 20
    while (status := Path(f"/proc/{pid}/status")).exists() and "Z (zombie)" not in (
        status.read_text()
    ):
        assert time.monotonic() < end, "the proxy outlived its parent by 20 s"
        time.sleep(0.1)


def test_a_port_in_use_is_told_in_one_line():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=rf"cannot listen on 127.0.0.1 port {port} \(Address"):
            fleet_proxy("127.0.0.1", port, "http://127.0.0.1:1", None, Path())


def test_calls_signed_before_a_time_are_to_be_signed_again():
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    text, seconds = moment.isoformat(), moment.timestamp()
    assert signed_before(text, seconds + 0.1) and not signed_before(text, seconds)
    assert signed_before(None, seconds) and signed_before("yesterday", seconds)


def test_a_proxy_that_ends_again_and_again_ends_the_server_in_one_line(tmp_path, monkeypatch):
    started, said = [], []

    def ends_at_once(*address, signed_after, **options):
        started.append(signed_after)
        return subprocess.Popen([sys.executable, "-c", "exit(3)"], stdin=subprocess.PIPE)

    monkeypatch.setattr(secure_server, "fleet_proxy", ends_at_once)
    monkeypatch.setattr(secure_server, "sync_keys", lambda *arguments: None)
    monkeypatch.setattr(secure_server, "WATCH_SECONDS", 0.01)
    protection = secure_server.Protection(SimpleNamespace(ca=None), tmp_path / "keys")
    with (
        pytest.raises(RunError, match=r"no client can reach .* ended 6 times .*door\.log"),
        secure_server.open_secure_server(
            "127.0.0.1", 1, "127.0.0.1:2", protection, tmp_path / "door.log", said.append
        ),
    ):
        time.sleep(60)
    assert said == ["the proxy ended (status 3) and is started again"] * secure_server.MOST_ENDS
    assert started[0] == -math.inf and min(started[1:]) > time.time() - 60
