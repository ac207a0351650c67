import pytest

pytest.importorskip("flwr")

import warm

pytestmark = pytest.mark.slow


@pytest.fixture
def fedpace(tmp_path, tmp_path_factory):
    scratch = tmp_path_factory.mktemp("scratch")
    return lambda *words: warm.fedpace(*words, cwd=tmp_path, scratch=scratch)


def test_certificates_and_keys_are_made_listed_and_revoked(fedpace, tmp_path):
    done = fedpace("certificates", "certs", "--host", "server.lan")
    assert done.returncode == 0, done.stderr
    assert "certs/server.crt" in done.stdout and "certs/ca.crt" in done.stdout
    for name in ("one", "two"):
        assert fedpace("keys", "add", name).returncode == 0
    assert fedpace("keys", "list").stdout.split() == ["one", "two"]
    assert fedpace("keys", "revoke", "one").returncode == 0
    assert fedpace("keys", "list").stdout.split() == ["two"]
    # A key made elsewhere comes as its public half.
    (tmp_path / "keys" / "one.pub").rename(tmp_path / "laptop.pub")
    assert fedpace("keys", "add", "laptop.pub").returncode == 0
    assert fedpace("keys", "list").stdout.split() == ["two", "laptop"]


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["certificates", "certs", "--host", "https://x"], 2, "'https://x' is neither"),
        (["keys", "add", "none.pub"], 2, "no public key none.pub"),
        (["keys", "add", "a/b"], 2, "'a/b' cannot name a client"),
        (["keys", "revoke", "nobody"], 2, "no client 'nobody'"),
        (["keys", "list", "--server", "127.0.0.1:1"], 1, "127.0.0.1:1 does not answer"),
    ],
)
def test_a_mistake_ends_in_one_line(fedpace, words, status, message):
    done = fedpace(*words)
    assert done.returncode == status
    [line] = done.stderr.strip().splitlines()
    assert line.startswith("fedpace: ") and message in line
