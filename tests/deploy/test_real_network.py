"""Real processes on loopback: who may join, what a client's machine can reach, what is refused."""

import json
import os
import signal
import ssl
import subprocess
import time
from base64 import b64encode
from pathlib import Path

import httpx
import numpy as np
import pytest

pytest.importorskip("flwr")

from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.proto.fleet_pb2 import PullMessagesRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.date import now
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message

from deploy.processes import (
    admit,
    flwr,
    free_port,
    server_behind_its_proxy,
    shut_out,
    status,
    submit,
    superlink,
    supernode,
    wait_until,
)
from fedpace.deploy.certificates import make_development_ca
from fedpace.deploy.keys import (
    FILE,
    add_key,
    list_clients,
    make_key,
    read_public_key,
    revoke_key,
)
from fedpace.deploy.secure_server import Protection, open_secure_server
from fedpace.deploy.tcp_relay import open_relay
from fedpace.deploy.uplink_pacing import paced

pytestmark = [pytest.mark.slow, pytest.mark.flower]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with server_behind_its_proxy(tmp_path_factory.mktemp("server")) as running:
        yield running


def log(server, name):
    return (server.folder / f"{name}.log").read_text()


def test_a_client_joins_and_works_through_the_proxy_with_twenty_megabytes_each_way(server):
    key, out = admit(server, "worker"), server.folder / "worked.json"
    with supernode(server.folder, "worker", server.outer, server.ca, key):
        wait_until(lambda: status(server, "worker") == "online", "the client's joining")
        done = submit(server, "inner", out, size=20_000_000)
        assert done.returncode == 0, done.stdout + done.stderr
        wait_until(out.exists, "the run's end", 90)
    assert json.loads(out.read_text()) == {"answers": 1, "same": True, "said": []}
    shut_out(server, "worker")


def test_a_paced_client_sends_at_its_rate_through_tls(server):
    """Bytes are counted between the paced sender and the server."""
    key, out, seen = admit(server, "paced"), server.folder / "paced.json", []
    rate, size = 4e6, 1_000_000
    with (
        open_relay(
            "127.0.0.1", server.outer,
            watch=lambda n, way, data: way == "up" and seen.append((time.monotonic(), len(data))),
        ) as counting,
        paced(f"localhost:{counting.port}", True) as link,
        supernode(
            server.folder, "paced", counting.port, server.ca, key, more=dict(link.environment)
        ),
    ):  # fmt: skip
        wait_until(lambda: status(server, "paced") == "online", "the client's joining")
        link.pace(rate, size)
        assert submit(server, "inner", out, size=size).returncode == 0
        wait_until(out.exists, "the run's end", 60)
    assert json.loads(out.read_text())["same"]
    times, sizes = np.array(seen).T
    sent = np.cumsum(sizes)
    assert size < sent[-1] < 1.1 * size
    first, last = np.searchsorted(sent, [0.2 * size, 0.9 * size])
    bps = 8 * (sent[last] - sent[first]) / (times[last] - times[first])
    assert bps == pytest.approx(rate, rel=0.1)
    shut_out(server, "paced")


def test_a_clients_machine_cannot_submit_a_run_nor_list_them(server):
    out = server.folder / "never.json"
    refused = submit(server, "outer", out)
    assert refused.returncode != 0
    assert "404" in refused.stdout + refused.stderr
    assert flwr(server.home, "ls", "outer").returncode != 0
    assert flwr(server.home, "ls", "inner").returncode == 0
    listed = flwr(server.home, "ls", "inner", "--format", "json")
    before = len(json.loads(listed.stdout)["runs"])
    assert submit(server, "inner", out, seconds=1.0).returncode == 0
    listed = flwr(server.home, "ls", "inner", "--format", "json")
    assert len(json.loads(listed.stdout)["runs"]) == before + 1


def test_no_path_but_the_fleets_leads_through_the_proxy(server):
    from flwr.supercore.protobuf.translation import PROTOBUF_REQUEST_TYPES

    closed = [path for _, path in PROTOBUF_REQUEST_TYPES if not path.startswith("/v1/fleet/")]
    assert len(closed) > 50
    closed += ["/", "/docs", "/openapi.json", "/health", "/v1/fleet", "/v1/fleet/", "/v1/fleet/x",
               "/v1/runtime/responses", "/v1/fleet/../control/start-run",
               "/v1/fleet/%2e%2e/control/start-run", "/v1/fleet/..%2Fcontrol%2Fstart-run",
               "//v1/control/start-run", "/v1/fleet/get-run/../../control/list-runs"]  # fmt: skip
    outer, inner = f"https://localhost:{server.outer}", f"https://localhost:{server.inner}"
    context = ssl.create_default_context(cafile=server.ca)
    headers = {"content-type": "application/protobuf"}
    with httpx.Client(verify=context, headers=headers) as client:
        for path in closed:
            url = httpx.URL(outer).copy_with(raw_path=path.encode())
            assert client.post(url).status_code == 404, path
            assert client.get(url).status_code in (404, 405), path
        assert client.get(inner + "/health").status_code == 200


def ended(running):
    try:
        return running.wait(40)
    except subprocess.TimeoutExpired:
        return None


def test_a_client_that_meets_a_server_of_another_authority_does_not_join(server):
    key = admit(server, "careful")
    other = make_development_ca(server.folder / "other", ["localhost"])
    with supernode(server.folder, "careful", server.outer, other.ca, key) as running:
        assert ended(running) not in (0, None)
    assert "CERTIFICATE_VERIFY_FAILED" in log(server, "careful")
    assert status(server, "careful") == "registered"
    shut_out(server, "careful")


def test_a_client_with_an_unknown_key_does_not_join(server):
    make_key(server.folder / "stranger", "stranger")
    key = server.folder / "stranger" / "stranger"
    with supernode(server.folder, "stranger", server.outer, server.ca, key) as running:
        assert ended(running) is not None
    assert "activate-node from 127.0.0.1: its key is not among those that may" in log(
        server, "proxy"
    )
    # The proxy turned it away: nothing of it reached Flower's server.
    assert "No SuperNode found" not in log(server, "superlink")


def test_a_client_without_a_key_does_not_join(server):
    before = log(server, "superlink").count("Activated")
    with supernode(server.folder, "nobody", server.outer, server.ca) as running:
        assert ended(running) is not None
    assert log(server, "superlink").count("Activated") == before


def test_a_revoked_client_is_stopped_and_does_not_join_again(server):
    key = admit(server, "gone")
    with supernode(server.folder, "gone", server.outer, server.ca, key) as running:
        wait_until(lambda: status(server, "gone") == "online", "the client's joining")
        shut_out(server, "gone")
        assert ended(running) is not None
    before = log(server, "superlink").count("Activated")
    with supernode(server.folder, "gone again", server.outer, server.ca, key) as running:
        assert ended(running) is not None
    assert log(server, "superlink").count("Activated") == before


class Caller:
    """Makes a node's calls by hand."""

    def __init__(self, key, node, ca):
        self.key = load_ssh_private_key(key.read_bytes(), None)
        self.content = PullMessagesRequest(node=Node(node_id=node)).SerializeToString()
        self.tls = ssl.create_default_context(cafile=ca)

    def signed(self):
        timestamp = now().isoformat()
        return {
            "flwr-public-key": b64encode(public_key_to_bytes(self.key.public_key())).decode(),
            "flwr-timestamp": timestamp,
            "flwr-signature": b64encode(sign_message(self.key, timestamp.encode())).decode(),
            "content-type": "application/protobuf",
        }

    def call(self, port, headers):
        url = f"https://localhost:{port}/v1/fleet/pull-messages"
        try:
            return httpx.post(
                url, content=self.content, headers=headers, verify=self.tls
            ).status_code
        except httpx.TransportError:
            return None


def own_proxies():
    found = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(os.getpid())], capture_output=True, text=True
    ).stdout.splitlines()
    return [int(line.split()[0]) for line in found if "fedpace.deploy.proxy --fd" in line]


def a_killed_proxy_is_replaced(caller, inner, outer):
    """By one that does not take what the old one has seen, although Flower would."""
    seen = caller.signed()
    assert caller.call(outer, seen) == 200
    old = own_proxies()
    for pid in old:
        if f":{inner} " in Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " "):
            os.kill(pid, signal.SIGKILL)
    wait_until(lambda: caller.call(outer, caller.signed()) == 200, "the new proxy")
    assert caller.call(inner, seen) == 200
    assert caller.call(outer, seen) == 503
    assert set(own_proxies()) != set(old)


def test_keys_that_are_added_or_revoked_while_the_server_runs_count_at_once(tmp_path):
    certificates = make_development_ca(tmp_path / "certs", [])
    protection, said = Protection(certificates, tmp_path / "keys"), []
    inner, outer = free_port(), free_port()
    with (
        superlink(tmp_path, inner, certificates),
        open_secure_server(
            "127.0.0.1", outer, f"127.0.0.1:{inner}", protection, tmp_path / "door.log", said.append
        ),
    ):
        keys = protection.keys
        add_key(keys, "late", read_public_key(make_key(keys, "late")))
        wait_until(lambda: said == ["keys: 1 added, 0 revoked"], "the key's arrival")
        patience = "--max-wait-time", 30
        node = supernode(tmp_path, "late", outer, certificates.ca, keys / "late", patience)
        with node as running:
            known = lambda: list_clients(keys, f"127.0.0.1:{inner}", certificates.ca)  # noqa: E731
            wait_until(lambda: known()[0][2] == "online", "the client's joining")
            text = (keys / FILE).read_text()
            (keys / FILE).write_text("nonsense\n")
            wait_until(lambda: "line 1" in said[-1], "the complaint")
            assert running.poll() is None
            (keys / FILE).write_text(text)
            wait_until(lambda: said[-1] == "keys: 0 added, 0 revoked", "the file's repair")
            a_killed_proxy_is_replaced(
                Caller(keys / "late", int(known()[0][1]), certificates.ca), inner, outer
            )
            assert "the proxy ended (status -9) and is started again" in said
            assert running.poll() is None
            revoke_key(keys, "late")
            assert ended(running) is not None
