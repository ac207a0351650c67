import shutil
import stat
import subprocess

import pytest

pytest.importorskip("flwr")

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_ssh_private_key,
)

from fedpace.core.errors import InputError, RunError
from fedpace.deploy.keys import (
    FILE,
    add_key,
    make_key,
    read_keys,
    read_public_key,
    revoke_key,
    sync_keys,
)


def names(folder):
    return [key.name for key in read_keys(folder)]


def test_a_pair_belongs_together_and_only_its_owner_reads_the_private_key(tmp_path):
    public = make_key(tmp_path, "phone-7")
    private = tmp_path / "phone-7"
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    key = load_ssh_private_key(private.read_bytes(), None)
    assert isinstance(key.curve, ec.SECP384R1)
    own = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    assert read_public_key(public) == own
    with pytest.raises(InputError, match="exists and is not replaced"):
        make_key(tmp_path, "phone-7")


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="no OpenSSH here")
def test_openssh_reads_our_keys_and_we_read_its(tmp_path):
    public = make_key(tmp_path, "ours")
    said = subprocess.run(
        ["ssh-keygen", "-y", "-f", tmp_path / "ours"], capture_output=True, text=True, check=True
    )
    assert said.stdout.split()[:2] == public.read_text().split()[:2]
    command = ["ssh-keygen", "-q", "-t", "ecdsa", "-b", "256", "-N", "", "-f", tmp_path / "theirs"]
    subprocess.run(command, check=True)
    assert read_public_key(tmp_path / "theirs.pub").startswith("ecdsa-sha2-nistp256 ")


def test_who_is_added_is_listed_until_revoked(tmp_path):
    for name in ("one", "two", "three"):
        add_key(tmp_path, name, read_public_key(make_key(tmp_path, name)))
    assert names(tmp_path) == ["one", "two", "three"]
    revoke_key(tmp_path, "two")
    assert names(tmp_path) == ["one", "three"]
    with pytest.raises(InputError, match="no client 'two'; there are one, three"):
        revoke_key(tmp_path, "two")
    two = read_public_key(tmp_path / "two.pub")
    add_key(tmp_path, "two-again", two)
    with pytest.raises(InputError, match="the key of 'two-again' already"):
        add_key(tmp_path, "other", two)
    with pytest.raises(InputError, match="the name 'one' already"):
        add_key(tmp_path, "one", "ecdsa-sha2-nistp256 AAAA")


def test_flower_knows_a_key_by_the_same_bytes_as_its_own_command(tmp_path):
    from flwr.cli.supernode.register import try_load_public_key

    public = make_key(tmp_path, "one")
    add_key(tmp_path, "one", read_public_key(public))
    assert read_keys(tmp_path)[0].pem == try_load_public_key(public)


@pytest.mark.parametrize("name", ["", "../up", "a b", ".hidden", "x" * 65, "a\nb"])
def test_a_name_that_could_not_be_a_file_or_a_word_is_refused(name, tmp_path):
    with pytest.raises(InputError, match="cannot name a client"):
        make_key(tmp_path / "keys", name)
    with pytest.raises(InputError, match="cannot name a client"):
        add_key(tmp_path / "keys", name, "key")
    assert not (tmp_path / "keys").exists()


def test_what_is_no_key_that_flower_takes_is_told_with_its_place(tmp_path):
    ed = ed25519.Ed25519PrivateKey.generate().public_key()
    text = ed.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    (tmp_path / "ed.pub").write_text(text)
    with pytest.raises(InputError, match=r"ed.pub is no NIST elliptic-curve key"):
        read_public_key(tmp_path / "ed.pub")
    with pytest.raises(InputError, match=r"no public key .*none.pub"):
        read_public_key(tmp_path / "none.pub")
    (tmp_path / FILE).write_text(f"# allowed\n\n{text} name\n")
    with pytest.raises(InputError, match="line 3 is no NIST"):
        read_keys(tmp_path)
    (tmp_path / FILE).write_text("ecdsa-sha2-nistp384 AAAA\n")
    with pytest.raises(InputError, match="line 1 is not 'TYPE KEY NAME'"):
        read_keys(tmp_path)


def test_a_server_that_is_not_there_is_told(tmp_path):
    with pytest.raises(RunError, match="127.0.0.1:1 does not answer"):
        sync_keys(tmp_path, "127.0.0.1:1", None)
