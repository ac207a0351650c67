"""What cannot be run here is at least read: every command in the deployment files is parsed."""

import configparser
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("flwr")

import typer
import yaml

from fedpace.cli import app

ROOT = Path(__file__).parents[2]
UNITS = sorted((ROOT / "packaging" / "systemd").glob("*.service"))
GUIDE = (ROOT / "docs" / "deployment.md").read_text()
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())


def parse(words):
    """Return a command's parameters as the command line understands them, or fail."""
    command, name = typer.main.get_command(app), "fedpace"
    while hasattr(command, "commands"):
        name, *words = words
        command = command.commands[name]
    return name, command.make_context(name, list(words)).params


def guide_commands():
    for block in re.findall(r"```sh\n(.*?)```", GUIDE, flags=re.DOTALL):
        yield from block.strip().splitlines()


@pytest.mark.parametrize("line", [c for c in guide_commands() if c.startswith("fedpace ")])
def test_a_command_of_the_guide_is_one_of_ours(line):
    parse(shlex.split(line)[1:])


def comment_commands(text):
    return re.findall(r"^#\s+fedpace (.*)$", text, flags=re.MULTILINE)


def commands_in(shell):
    """The FedPace commands in a line, or in a script of one."""
    return [
        shlex.split(part.strip())[1:]
        for part in re.split(r";|\bthen exec\b|\belse exec\b", shell)
        if re.match(r"(\S*/)?fedpace ", part.strip())
    ]


def test_the_services_of_the_compose_file_say_what_we_understand():
    services = COMPOSE["services"]
    declared = set(re.findall(r"^ARG (\w+)", DOCKERFILE, flags=re.MULTILINE))
    seen = []
    for name, service in services.items():
        assert set(service["build"]["args"]) <= declared
        assert (ROOT / service["build"]["context"] / "Dockerfile").exists()
        mounted = [volume.split(":")[1] for volume in service.get("volumes", [])]
        mounted += [f"/run/secrets/{secret}" for secret in service.get("secrets", [])]
        assert set(service.get("secrets", [])) <= COMPOSE["secrets"].keys()
        shell = service["command"]
        if service.get("entrypoint") == ["sh", "-c"]:
            [shell] = shell
        else:  # the image's own entry point
            assert 'ENTRYPOINT ["fedpace"]' in DOCKERFILE
            shell = f"fedpace {shell}"
        for path in re.findall(r"(?<= )/[^\s;]+", shell):
            assert any(path == m or path.startswith(m + "/") for m in mounted), (name, path)
        for words in commands_in(shell):
            kind, parameters = parse(words)
            seen.append((name, kind))
            if kind == "serve":
                assert service["ports"] == [f"{parameters['port']}:{parameters['port']}"]
                port = parameters["port"]
            else:
                assert parameters["server"] == f"server:{port}"
                assert str(parameters["key"]).endswith(name)
    assert seen == [("server", "serve")] * 2 + [("client-1", "join"), ("client-2", "join")]


def test_what_to_prepare_makes_the_files_that_the_compose_file_mounts(tmp_path, monkeypatch):
    from typer.testing import CliRunner

    monkeypatch.chdir(tmp_path)
    for line in comment_commands((ROOT / "compose.yaml").read_text()):
        assert CliRunner().invoke(app, shlex.split(line)).exit_code == 0
    for secret in COMPOSE["secrets"].values():
        assert (tmp_path / secret["file"]).is_file()


def test_what_the_image_copies_is_not_kept_from_it():
    allowed = (ROOT / ".dockerignore").read_text().split()
    for line in re.findall(r"^COPY (.*)$", DOCKERFILE, flags=re.MULTILINE):
        *sources, _ = line.split()
        for source in sources:
            assert (ROOT / source).exists() and f"!{source}" in allowed
    extras = re.search(r"^ARG EXTRAS=(.*)$", DOCKERFILE, flags=re.MULTILINE).group(1).split(",")
    project = (ROOT / "pyproject.toml").read_text()
    assert all(re.search(rf"^{extra} = \[", project, flags=re.MULTILINE) for extra in extras)


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_a_unit_starts_what_we_understand_and_may_write_where_it_writes(path):
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str
    # A line that goes on must not look to Python like one of its own.
    unit.read_string(path.read_text().replace("\\\n", " "))
    service = unit["Service"]
    start = service["ExecStart"].replace("%i", "server.lan:8080")
    script = re.fullmatch(r"/bin/sh -c '(.*)'", start)
    found = [parse(words) for words in commands_in(script.group(1) if script else start)]
    server = "server" in path.stem
    assert [kind for kind, _ in found] == (["serve", "serve"] if server else ["join"])
    assert service["ProtectSystem"] == "strict"
    assert service["WorkingDirectory"] == f"/var/lib/{service['StateDirectory']}"
    if server:  # both in the working directory, which it may write
        assert str(found[0][1]["resume"]) == str(found[1][1]["out"]) == "run"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_systemd_reads_a_unit_without_complaint(path, tmp_path):
    text = path.read_text().replace("/opt/fedpace/bin/fedpace", "/bin/true")
    (tmp_path / path.name).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", tmp_path / path.name],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0 and done.stderr == "", done.stderr
