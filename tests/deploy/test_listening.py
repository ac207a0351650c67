"""A run that is resumed is served as it was before."""

from pathlib import Path

import pytest

pytest.importorskip("flwr")

from fedpace.core.errors import InputError
from fedpace.deploy.listening import (
    FILE,
    Listening,
    recalled_examples,
    recalled_listening,
    remember,
)

NOTHING = None, None, None, None, None


def test_a_resumed_run_has_its_address_certificates_and_keys(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("certs", "keys"):
        (tmp_path / name).mkdir()
    served = Listening("0.0.0.0", 9000, None, Path("certs"), Path("keys"))
    remember(tmp_path, served, {"a": 7, "b": 9})
    assert recalled_examples(tmp_path) == {"a": 7, "b": 9}
    monkeypatch.chdir("/")
    found = recalled_listening(tmp_path, *NOTHING)
    assert (found.host, found.port) == ("0.0.0.0", 9000)
    assert (found.certificates, found.keys) == (tmp_path / "certs", tmp_path / "keys")
    other = recalled_listening(tmp_path, "127.0.0.1", 9001, None, None, None)
    assert other == Listening("127.0.0.1", 9001)  # who says where says how
    assert recalled_listening(tmp_path, None, 9001, None, None, None).keys == found.keys
    (tmp_path / "keys").rmdir()
    with pytest.raises(InputError, match="keys, which is not there any more"):
        recalled_listening(tmp_path, *NOTHING)


def test_a_new_run_listens_on_loopback_and_a_note_that_cannot_be_read_is_named(tmp_path):
    assert recalled_listening(None, *NOTHING) == Listening("127.0.0.1", 8080)
    assert recalled_listening(tmp_path, *NOTHING) == Listening("127.0.0.1", 8080)
    (tmp_path / FILE).write_text("{")
    with pytest.raises(InputError, match=r"serve\.json cannot be read"):
        recalled_listening(tmp_path, *NOTHING)
