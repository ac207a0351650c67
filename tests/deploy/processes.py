"""Flower's own processes, and a small application of one message a client, for tests."""

import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

BIN = Path(sys.executable).parent
LOG_TAIL = 3000


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
def process(command, log, home):
    """Run a command with its output in a file; end it, with its children, at the end."""
    with log.open("wb") as output:
        running = subprocess.Popen(
            [str(word) for word in command], stdout=output, stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL, env=environment(home),
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
def superlink(folder, port, certificates):
    command = [
        "flower-superlink", "--host", "127.0.0.1", "--port", port, "--enable-supernode-auth",
        "--disable-runtime-dependency-installation", "--ssl-ca-certfile", certificates.ca,
        "--ssl-certfile", certificates.certificate, "--ssl-keyfile", certificates.key,
    ]  # fmt: skip
    with process(command, folder / "superlink.log", folder / "home") as running:
        wait_until(lambda: answers(port), "the server's port")
        yield running


def supernode(folder, name, port, ca, key=None):
    command = ["flower-supernode", "--root-certificates", ca, "--superlink", f"localhost:{port}",
               "--port", free_port(), "--max-retries", 2]  # fmt: skip
    if key is not None:
        command += ["--auth-supernode-private-key", key]
    return process(command, folder / f"{name}.log", folder / "home")


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
    sent = os.urandom(config["size"])
    content = RecordDict({"part": ConfigRecord({"bytes": sent})})
    [asked] = grid.push_messages([Message(content, dst_node_id=nodes[0], message_type="train")])
    answers, end = [], time.monotonic() + config["seconds"]
    while not answers and time.monotonic() < end:
        answers += list(grid.pull_messages([asked]))
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
        env=environment(home), timeout=120, stdin=subprocess.DEVNULL, cwd=home,
    )  # fmt: skip
