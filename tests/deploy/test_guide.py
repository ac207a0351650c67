"""The commands of docs/deployment.md, in its order, on loopback."""

import re
import shlex
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("flwr")
pytest.importorskip("torch")

import subprocess

import tiny
import warm
from deploy.processes import answers, free_port, process, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.flower, pytest.mark.torch]

GUIDE = (Path(__file__).parents[2] / "docs" / "deployment.md").read_text()


def commands(heading):
    """The commands in the blocks of one section."""
    section = re.search(rf"^## {heading}\n(.*?)(?=^## )", GUIDE, flags=re.DOTALL | re.MULTILINE)
    blocks = re.findall(r"```sh\n(.*?)```", section.group(1), flags=re.DOTALL)
    return [line for block in blocks for line in block.strip().splitlines()]


def here(line, port):
    """The words of a command, with this machine in place of the guide's."""
    line = line.replace("0.0.0.0", "127.0.0.1")
    line = re.sub(r"(server\.lan|127\.0\.0\.1):8080", f"localhost:{port}", line)
    words = shlex.split(line)
    if words[:2] == ["fedpace", "serve"]:
        words += ["--port", str(port), "--set", "training.rounds=2"]
    return words


def run(words, folder):
    if words[0] == "fedpace":
        scratch = folder / "scratch"
        scratch.mkdir(exist_ok=True)
        done = warm.fedpace(*words[1:], cwd=folder, scratch=scratch)
    else:
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return done.stdout


def started(words, folder, name):
    """As a person starts it: a new interpreter."""
    command = [sys.executable, "-m", *words]
    return process(command, folder / f"{name}.log", folder / "home", folder)


@contextmanager
def forked(words, folder, name):
    running = warm.Command(words[1:], folder, folder / f"{name}.log")
    try:
        yield running
    finally:
        running.kill()


@pytest.fixture
def place(tmp_path):
    one = tiny.EXPERIMENT.replace('["adaptive", "uniform"]', '["uniform"]')
    tiny.write_experiment(tmp_path, one).rename(tmp_path / "experiment.toml")
    for i in (1, 2):
        (tmp_path / f"data-{i}").mkdir()
        tiny.write_examples(tmp_path / f"data-{i}" / "train.jsonl", seed=i)
    return tmp_path


def finished(running, log):
    assert running.wait(120) == 0, log.read_text()


def test_on_one_laptop(place):
    serve, *joins = commands("On one laptop")
    port = free_port()
    with started(here(serve, port), place, "serve") as server:
        wait_until(lambda: answers(port), "the server's port", 60)
        with (
            started(here(joins[0], port), place, "join-1") as one,
            started(here(joins[1], port), place, "join-2") as two,
        ):
            finished(server, place / "serve.log")
            finished(one, place / "join-1.log")
            finished(two, place / "join-2.log")
    assert (place / "runs" / "1" / "report.html").is_file()


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="no OpenSSH here")
def test_on_several_machines(place):
    found = commands("On several machines")
    serve = next(line for line in found if line.startswith("fedpace serve"))
    join = next(line for line in found if line.startswith("fedpace join"))
    port = free_port()
    for line in found[: found.index(serve)]:
        run(here(line, port), place)
    assert run(here("fedpace keys list", port), place).split() == ["phone-7", "laptop", "tablet"]
    clients = {}
    for i, name in enumerate(("phone-7", "laptop"), start=1):
        clients[name] = place / f"machine-{name}"
        clients[name].mkdir()
        (place / f"data-{i}").rename(clients[name] / "data")
        shutil.copy(place / "certs" / "ca.crt", clients[name])
        shutil.copy(place / "keys" / name, clients[name])
    with forked(here(serve, port), place, "serve") as server:
        wait_until(lambda: answers(port), "the server's port", 60)
        with (
            forked(here(join, port), clients["phone-7"], "join") as phone,
            forked(
                here(join.replace("phone-7", "laptop"), port), clients["laptop"], "join"
            ) as laptop,
        ):
            finished(server, place / "serve.log")
            finished(phone, clients["phone-7"] / "join.log")
            finished(laptop, clients["laptop"] / "join.log")
    text = (place / "runs" / "1" / "clients.csv").read_text()
    assert "phone-7" in text and "laptop" in text
    for line in found[found.index(join) + 1 :]:
        run(here(line, port), place)
    assert run(here("fedpace keys list", port), place).split() == ["laptop", "tablet"]
