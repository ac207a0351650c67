"""`fedpace join` at a server open to a network: who is let in, as whom, and who is told why."""

import pytest

pytest.importorskip("flwr")

from typer.testing import CliRunner

from deploy.processes import admit, free_port, server_behind_its_proxy, superlink
from engines.fake_grid import FakeGrid
from fedpace.cli import app
from fedpace.core.errors import InputError
from fedpace.deploy.certificates import make_development_ca
from fedpace.deploy.keys import make_key
from fedpace.engines.flower.client import make_client_app
from fedpace.engines.flower.roster import Roster


def test_who_joined_with_a_key_is_whom_the_key_was_given_to_whatever_it_says():
    def client(name):
        return make_client_app(lambda offer, context: {"name": name, "examples": 5}, None)

    grid = FakeGrid({1: client("phone"), 2: client("phone"), 3: client("tablet")})
    grid.key_names = {1: "phone", 2: "phone-2"}
    roster = Roster(grid, {"run": "r"})
    roster.poll()
    roster.poll()
    assert {name: m.node for name, m in roster.members.items()} == {
        "phone": 1, "phone-2": 2, "tablet": 3,
    }  # fmt: skip
    assert all(m.facts["name"] == name for name, m in roster.members.items())


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with server_behind_its_proxy(tmp_path_factory.mktemp("admission"), "0.0.0.0") as running:
        yield running


@pytest.fixture
def join(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    from fedpace.deploy import client

    monkeypatch.setattr(client, "KEPT_OUT_SECONDS", 0.0)

    def join(server, ca=None, key=None):
        admission = None if ca is None else client.Admission(ca, key)
        own = client.Own("someone", tmp_path)
        client.join(server, own, lambda text: None, log=tmp_path / "log", admission=admission)

    return join


def stranger(server, folder):
    make_key(folder / "own", "own")
    return f"localhost:{server.outer}", server.ca, folder / "own" / "own"


def other_authority(server, folder):
    other = make_development_ca(folder / "other", [])
    return f"localhost:{server.outer}", other.ca, admit(server, "careful")


def other_name(server, folder):
    return f"127.0.0.2:{server.outer}", server.ca, admit(server, "lost")


def no_key(server, folder):
    return f"localhost:{server.outer}", None, None


@pytest.mark.slow
@pytest.mark.flower
@pytest.mark.torch
@pytest.mark.parametrize(
    ("who", "remedy"),
    [
        (stranger, "its key is not among those that may join"),
        (other_authority, "not of the authority given by --ca"),
        (other_name, "certificate has other addresses"),
        (no_key, "give --ca and --key"),
    ],
)
def test_a_client_that_is_not_let_in_is_told_why(who, remedy, server, join, tmp_path):
    with pytest.raises(InputError, match=remedy):
        join(*who(server, tmp_path))


@pytest.mark.slow
@pytest.mark.flower
@pytest.mark.torch
def test_a_client_with_a_key_at_a_server_without_is_told(server, join, tmp_path):
    port = free_port()
    with superlink(tmp_path, port), pytest.raises(InputError, match="answers without TLS"):
        join(f"localhost:{port}", server.ca, admit(server, "eager"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["serve", "--host", "0.0.0.0"], "takes --certificates and --keys"),
        (["serve", "--keys", "keys"], "--certificates and --keys go together"),
        (["serve", "--certificates", "none", "--keys", "keys"], "ca.crt is missing"),
        (["join", "x:1", "--data", ".", "--ca", "ca.crt"], "--ca and --key go together"),
        (["join", "x:1", "--data", ".", "--ca", "a", "--key", "b"], "there is no file a"),
        (["join", "x:1", "--data", ".", "--ca", "a", "--key", "b", "--name", "c"], "leave --name"),
    ],
)
def test_what_does_not_fit_together_is_told(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, words)
    assert isinstance(done.exception, InputError) and message in str(done.exception)
    assert list(tmp_path.iterdir()) == []
