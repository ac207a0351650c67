"""Attacks over the network on a run of real processes with TLS and keys: each outcome is that of
docs/deployment.md, and the run goes on."""

import json
import re
import socket
import ssl
import time
from base64 import b64encode
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("flwr")
pytest.importorskip("torch")

from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.supercore.date import now
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message

from deploy.fleet import Fleet
from deploy.processes import wait_until
from deploy.trouble import full_disk, wrong_clock
from fedpace.deploy.certificates import make_development_ca
from fedpace.deploy.keys import add_key, make_key, read_public_key, revoke_key

pytestmark = [pytest.mark.long, pytest.mark.slow, pytest.mark.flower, pytest.mark.torch]
MIB = 2**20
ALLOWED = 100 * MIB
"""More than what the server has at rest, for whatever strangers send."""


class SecureFleet(Fleet):
    """A server with certificates and keys, and two honest clients in a run without end."""

    def begin(self):
        self.keys, self.ca = self.folder / "keys", self.folder / "certs" / "ca.crt"
        make_development_ca(self.folder / "certs", ["localhost"])
        for name in ("one", "two"):
            self.let_in(name)
        self.serve(self.experiment, "--out", "run", "--clients", 2, "--certificates", "certs",
                   "--keys", "keys")  # fmt: skip
        self.wait_for("server", "listening")
        for n, name in enumerate(("one", "two")):
            self.joined(name, n)
        self.goes_on()
        return self

    def let_in(self, name):
        add_key(self.keys, name, read_public_key(make_key(self.keys, name)))
        return self.keys / name

    def joined(self, name, n, key=None, first=None, output=None):
        said = output or name
        return self.run(
            said, "join", f"localhost:{self.port}", "--partition", f"{n}/{self.clients}", "--ca",
            self.ca, "--key", key or self.keys / name, "--log", f"node-{said}.log", first=first,
        )  # fmt: skip

    def goes_on(self, seconds=240):
        """Two more rounds with both honest clients."""
        before = self.rounds()
        try:
            wait_until(lambda: self.rounds() >= before + 2, "two more rounds", seconds)
        except AssertionError:
            self.tell()
            raise

    def rounds(self):
        path = self.folder / "run" / "rounds.jsonl"
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        people = [{p["client"] for p in json.loads(line)["participants"]} for line in lines]
        return sum({0, 1} <= each for each in people)

    def signed(self, key, **changes):
        private = load_ssh_private_key(key.read_bytes(), None)
        timestamp = now().isoformat()
        return {
            "flwr-public-key": b64encode(public_key_to_bytes(private.public_key())).decode(),
            "flwr-timestamp": timestamp,
            "flwr-signature": b64encode(sign_message(private, timestamp.encode())).decode(),
            **changes,
        }

    def connect(self):
        context = ssl.create_default_context(cafile=self.ca)
        plain = socket.create_connection(("localhost", self.port), 10)
        return context.wrap_socket(plain, server_hostname="localhost")

    def call(self, headers, content=b"", name="pull-messages"):
        lines = [f"POST /v1/fleet/{name} HTTP/1.1", "Host: localhost",
                 f"Content-Length: {len(content)}",
                 *(f"{key}: {value}" for key, value in headers)]  # fmt: skip
        with self.connect() as connection:
            connection.sendall("\r\n".join([*lines, "", ""]).encode() + content)
            return int(connection.recv(100).split()[1])

    def processes(self):
        """Flower's server and the proxy: their ids."""
        server = self.running[0].pid
        children = Path(f"/proc/{server}/task/{server}/children").read_text().split()
        found = {}
        for pid in children:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode()
            for name in ("superlink", "fedpace.deploy.proxy"):
                if name in words:
                    found[name] = int(pid)
        assert len(found) == 2, found
        return found

    def resident_bytes(self):
        total = 0
        for pid in self.processes().values():
            found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
            total += 1024 * int(found.group(1))
        return total


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    with SecureFleet(tmp_path_factory.mktemp("fleet"), clients=2, rounds=100_000) as running:
        yield running.begin()


def watched(fleet, attack):
    """Run an attack; returns the most bytes that server and proxy had above those at rest."""
    before, most = fleet.resident_bytes(), 0
    for _ in attack:
        most = max(most, fleet.resident_bytes() - before)
    return most


def test_an_unknown_key_does_not_join_and_both_sides_say_why(fleet):
    make_key(fleet.folder / "other", "unknown")
    client = fleet.joined("unknown", 0, fleet.folder / "other" / "unknown")
    assert client.wait(180) == 2
    assert "its key is not among those that may join; there: fedpace keys add" in (
        fleet.said("unknown")
    )
    assert "refused somebody at 127.0.0.1: its key is not among" in fleet.said("server")
    fleet.goes_on()


def test_a_revoked_client_ends_within_seconds(fleet):
    key = fleet.let_in("gone")
    client = fleet.joined("gone", 0, key)
    fleet.wait_for("server", "gone entered the run", 240)
    fleet.wait_for("gone", "training", 240)
    began = time.monotonic()
    revoke_key(fleet.keys, "gone")
    assert client.wait(180) == 2
    seconds = time.monotonic() - began
    print(f"revoked: the client ended after {seconds:.1f} s")
    assert seconds < 15
    assert "its key is not among those that may join" in fleet.said("gone")
    fleet.goes_on()


def test_replayed_and_doubled_and_forged_calls_are_refused(fleet):
    call = fleet.signed(fleet.keys / "one")
    assert fleet.call(call.items()) not in (400, 401)  # Flower sees the call, and no node in it
    assert fleet.call(call.items()) == 401
    fresh = fleet.signed(fleet.keys / "one")
    assert fleet.call([("flwr-signature", fresh["flwr-signature"]), *call.items()]) == 400
    assert fleet.call([*call.items(), ("Flwr-Signature", fresh["flwr-signature"])]) == 400
    make_key(fleet.folder / "forger", "forger")
    forged = fleet.signed(fleet.folder / "forger" / "forger")
    own = fleet.signed(fleet.keys / "one")
    assert fleet.call({**forged, "flwr-public-key": own["flwr-public-key"]}.items()) == 401
    old = {**own, "flwr-timestamp": "2020-01-01T00:00:00+00:00"}
    assert fleet.call(old.items()) == 401
    fleet.goes_on()


def chunked(fleet, headers, megabytes=250, at_once=4):
    """Bodies of which each chunk is sent as long as anyone reads; yields now and then."""
    head = "\r\n".join(["POST /v1/fleet/push-object HTTP/1.1", "Host: localhost",
                        "Transfer-Encoding: chunked",
                        *(f"{n}: {v}" for n, v in headers.items()), "", ""])  # fmt: skip
    chunk = b"%x\r\n" % MIB + bytes(MIB) + b"\r\n"
    with ExitStack() as stack:
        senders = [stack.enter_context(fleet.connect()) for _ in range(at_once)]
        for sender in senders:
            sender.settimeout(2.0)
            sender.sendall(head.encode())
        sent = 0
        for _ in range(megabytes):
            for sender in list(senders):
                try:
                    sender.sendall(chunk)
                    sent += MIB
                except OSError:
                    senders.remove(sender)
            yield sent
        time.sleep(1.0)
        yield sent


@pytest.mark.parametrize("who", ["nobody", "a stranger", "a forger"])
def test_four_bodies_of_250_megabytes_from_a_stranger_are_not_read(fleet, who):
    make_key(fleet.folder / who, "key")
    headers = {} if who == "nobody" else fleet.signed(fleet.folder / who / "key")
    if who == "a forger":
        headers["flwr-public-key"] = fleet.signed(fleet.keys / "one")["flwr-public-key"]
    most = watched(fleet, chunked(fleet, headers))
    print(f"{who}: {most / MIB:.0f} MiB above rest")
    assert most < ALLOWED
    fleet.goes_on()


def test_slow_headers_and_a_thousand_idle_connections_hold_up_nobody(fleet):
    def attack():
        with ExitStack() as stack:
            idle = [
                stack.enter_context(socket.create_connection(("localhost", fleet.port), 10))
                for _ in range(300)
            ]
            for n in range(1000):
                with suppress(OSError):
                    sender = stack.enter_context(fleet.connect())
                    sender.sendall(
                        b"POST /v1/fleet/push-object HTTP/1.1\r\nX: " + b"x" * (n % 9000)
                    )
                    idle.append(sender)
                if n % 50 == 0:
                    yield
            fleet.goes_on()
            yield

    most = watched(fleet, attack())
    print(f"a thousand idle: {most / MIB:.0f} MiB above rest")
    assert most < ALLOWED
    fleet.goes_on()


def test_who_trickles_its_headers_is_cut_off(fleet):
    began = time.monotonic()
    with fleet.connect() as sender, suppress(OSError):
        while time.monotonic() - began < 60:
            sender.sendall(b"P")
            time.sleep(0.5)
    assert time.monotonic() - began < 40
    fleet.goes_on()


def test_a_huge_body_of_a_client_is_refused_at_its_bound(fleet):
    one = fleet.keys / "one"
    assert fleet.call(fleet.signed(one).items(), bytes(5 * MIB), "push-messages") == 413
    fleet.goes_on()


@pytest.mark.parametrize(("seconds", "way"), [(86400, "ahead of"), (-86400, "behind")])
def test_a_clock_that_is_off_by_a_day_is_told_on_both_sides(fleet, seconds, way):
    name = f"clock-{way.split()[0]}"
    client = fleet.joined(name, 0, fleet.let_in(name), first=partial(wrong_clock, seconds))
    assert client.wait(180) == 2
    said = f"the client's clock is 86400 s {way} the server's"
    assert said in fleet.said(name)
    assert f"refused {name}: {said}" in fleet.said("server")
    fleet.goes_on()


def test_the_second_client_with_a_key_is_turned_away_and_the_first_goes_on(fleet):
    client = fleet.joined("one", 0, output="twin")
    assert client.wait(180) == 2
    assert "another client that is there has this key" in fleet.said("twin")
    fleet.goes_on()


def test_a_full_disk_at_the_server_is_one_line_and_the_run_resumes(tmp_path):
    with Fleet(tmp_path, clients=1, rounds=5) as fleet:
        server = fleet.serve(
            fleet.experiment, "--out", "run", "--clients", 1,
            first=partial(full_disk, str(tmp_path / "run" / "rounds.jsonl"), 2),
        )  # fmt: skip
        client = fleet.join(0)
        assert server.wait(120) == 1
        *_, last = fleet.said("server").strip().splitlines()
        assert last.startswith("fedpace: ") and "File too large" in last and "run" in last
        assert "Traceback" not in fleet.said("server")
        again = fleet.serve("--resume", "run", name="again")
        assert again.wait(120) == 0 and client.wait(60) == 0
    assert (tmp_path / "run" / "summary.json").exists()
