"""Flower's own processes, and a small application of one message a client, for tests."""

import json
import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

from fedpace.deploy.certificates import make_development_ca
from fedpace.deploy.keys import (
    add_key,
    list_clients,
    make_key,
    read_public_key,
    revoke_key,
    sync_keys,
)
from fedpace.deploy.proxy import fleet_proxy

BIN = Path(sys.executable).parent


def environment(home):
    """What keeps Flower from installing, reporting, or reading the user's own settings."""
    return {
        **os.environ,
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1",
    }


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


def wait_until(true, what, seconds=30.0):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"{what} did not happen in {seconds} s"
        time.sleep(0.05)


def answers(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1.0).close()
    except OSError:
        return False
    return True


@contextmanager
def process(command, log, home, folder=None, more=None):
    """Run a command with its output in a file; end it, with its children, at the end."""
    with log.open("wb") as output:
        running = subprocess.Popen(
            [str(word) for word in command], stdout=output, stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL, env=environment(home) | (more or {}), cwd=folder,
        )  # fmt: skip
        try:
            yield running
        finally:
            running.terminate()
            try:
                running.wait(20)
            except subprocess.TimeoutExpired:
                running.kill()
                running.wait()


@contextmanager
def superlink(folder, port, certificates=None):
    """Flower's server; without certificates also without keys."""
    command = [
        "flower-superlink", "--host", "127.0.0.1", "--port", port,
        "--disable-runtime-dependency-installation",
    ]  # fmt: skip
    if certificates is None:
        command += ["--insecure"]
    else:
        command += ["--enable-supernode-auth", "--ssl-ca-certfile", certificates.ca,
                    "--ssl-certfile", certificates.certificate,
                    "--ssl-keyfile", certificates.key]  # fmt: skip
    with process(command, folder / "superlink.log", folder / "home") as running:
        wait_until(lambda: answers(port), "the server's port", 240)
        yield running


def supernode(folder, name, port, ca, key=None, patience=("--max-retries", 2), more=None):
    command = ["flower-supernode", "--root-certificates", ca, "--superlink", f"localhost:{port}",
               "--port", free_port(), *patience]  # fmt: skip
    if key is not None:
        command += ["--auth-supernode-private-key", key]
    return process(command, folder / f"{name}.log", folder / "home", more=more)


def write_application(folder):
    """An application whose server sends a client bytes and writes down what comes back."""
    folder.mkdir()
    (folder / "pyproject.toml").write_text(
        """
[project]
name = "probe"
version = "1.0.0"
dependencies = []
[tool.flwr.app]
publisher = "fedpace"
[tool.flwr.app.components]
serverapp = "probe:server"
clientapp = "probe:client"
[tool.flwr.app.config]
out = ""
size = 8
seconds = 60.0
linger = 0.0
node = ""
"""
    )
    (folder / "probe.py").write_text(
        """
import hashlib
import json
import os
import time
from pathlib import Path

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

server = ServerApp()
client = ClientApp()


@server.main()
def main(grid, context):
    config = context.run_config
    while not (nodes := list(grid.get_node_ids())):
        time.sleep(0.1)
    node = int(config["node"]) if config["node"] else nodes[0]
    sent = os.urandom(config["size"])
    content = RecordDict({"part": ConfigRecord({"bytes": sent})})
    [asked] = grid.push_messages([Message(content, dst_node_id=node, message_type="train")])
    answers, end = [], time.monotonic() + config["seconds"]
    while time.monotonic() < end:
        found = list(grid.pull_messages([asked]))
        if found and not answers:
            end = time.monotonic() + config["linger"]
        answers += found
        time.sleep(0.1)
    back = [a.content["part"]["bytes"] for a in answers if a.has_content()]
    found = {
        "answers": len(back),
        "same": back == [sent[::-1]],
        "said": [b.decode() for b in back if len(b) < 100],
    }
    part = Path(config["out"] + ".part")
    part.write_text(json.dumps(found))
    part.replace(config["out"])


@client.train()
def train(message, context):
    back = message.content["part"]["bytes"][::-1]
    return Message(RecordDict({"part": ConfigRecord({"bytes": back})}), reply_to=message)
"""
    )
    return folder


def connect(home, name, port, ca):
    """Tell the `flwr` command of a server."""
    home.mkdir(exist_ok=True)
    with (home / "config.toml").open("a") as file:
        file.write(
            f'[superlink.{name}]\naddress = "localhost:{port}"\nroot-certificates = "{ca}"\n'
        )


def flwr(home, *words):
    return subprocess.run(
        [str(BIN / "flwr"), *map(str, words)], capture_output=True, text=True,
        env=environment(home), timeout=300, stdin=subprocess.DEVNULL, cwd=home,
    )  # fmt: skip


@contextmanager
def server_behind_its_proxy(folder, host="127.0.0.1"):
    """Flower's server on loopback with TLS and keys, and the proxy in front of it."""
    certificates = make_development_ca(folder / "certs", ["localhost"])
    inner, outer = free_port(), free_port()
    with superlink(folder, inner, certificates), (folder / "proxy.log").open("wb") as log:
        proxy = fleet_proxy(
            host, outer, f"https://127.0.0.1:{inner}", certificates, folder / "keys", log=log
        )
        try:
            connect(folder / "home", "inner", inner, certificates.ca)
            connect(folder / "home", "outer", outer, certificates.ca)
            yield SimpleNamespace(
                folder=folder, home=folder / "home", keys=folder / "keys", inner=inner,
                outer=outer, ca=certificates.ca, app=write_application(folder / "probe"),
            )  # fmt: skip
        finally:
            proxy.stdin.close()
            assert proxy.wait(20) == 0


def admit(server, name):
    add_key(server.keys, name, read_public_key(make_key(server.keys, name)))
    sync_keys(server.keys, f"127.0.0.1:{server.inner}", server.ca)
    return server.keys / name


def shut_out(server, name):
    revoke_key(server.keys, name)
    sync_keys(server.keys, f"127.0.0.1:{server.inner}", server.ca)


def status(server, name):
    found = list_clients(server.keys, f"127.0.0.1:{server.inner}", server.ca)
    return {n: s for n, _, s in found}[name]


def submit(server, connection, out, **config):
    words = " ".join(f"{key}={json.dumps(value)}" for key, value in config.items())
    return flwr(server.home, "run", server.app, connection, "-c", f'out="{out}" {words}')
