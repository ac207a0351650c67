import ssl
import stat

import pytest

pytest.importorskip("flwr")

from fedpace.core.errors import InputError
from fedpace.deploy.certificates import make_development_ca, read_certificates


def handshake(certificates, ca, name):
    """Shake hands in memory; return the agreed protocol version."""
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_context.load_cert_chain(certificates.certificate, certificates.key)
    client_context = ssl.create_default_context(cafile=ca)
    client_context.verify_flags |= ssl.VERIFY_X509_STRICT
    a, b = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = server_context.wrap_bio(a, b, server_side=True)
    client = client_context.wrap_bio(b, a, server_hostname=name)
    for _ in range(10):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            if side is client:
                return client.version()
    raise AssertionError("the handshake did not end")


@pytest.mark.parametrize("name", ["server.lan", "10.1.2.3", "localhost", "127.0.0.1", "::1"])
def test_a_client_that_trusts_the_authority_trusts_the_server_under_its_names(name, tmp_path):
    made = make_development_ca(tmp_path / "certs", ["server.lan", "10.1.2.3"])
    assert handshake(made, made.ca, name) == "TLSv1.3"


def test_neither_another_name_nor_another_authority_is_trusted(tmp_path):
    made = make_development_ca(tmp_path / "one", ["server.lan"])
    other = make_development_ca(tmp_path / "two", ["server.lan"])
    with pytest.raises(ssl.SSLCertVerificationError, match="not valid for 'other.lan'"):
        handshake(made, made.ca, "other.lan")
    with pytest.raises(ssl.SSLCertVerificationError, match="unable to get local issuer|signature"):
        handshake(made, other.ca, "server.lan")


def test_keys_are_readable_by_their_owner_alone_and_nothing_is_replaced(tmp_path):
    made = make_development_ca(tmp_path, [])
    for key in (made.key, tmp_path / "ca.key"):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
    before = made.key.read_bytes()
    for path in sorted(tmp_path.iterdir()):
        others = [p for p in tmp_path.iterdir() if p != path]
        kept = {p: p.read_bytes() for p in others}
        for p in others:
            p.unlink()
        with pytest.raises(InputError, match=f"{path.name} exists and is not replaced"):
            make_development_ca(tmp_path, [])
        for p, content in kept.items():
            p.write_bytes(content)
    assert made.key.read_bytes() == before


@pytest.mark.parametrize("host", ["https://a.lan", "a b", "a.lan:9092", "", "*"])
def test_a_host_that_is_no_name_is_told_and_nothing_is_written(host, tmp_path):
    with pytest.raises(InputError, match="is neither a name nor an address"):
        make_development_ca(tmp_path / "certs", [host])
    assert not (tmp_path / "certs").exists()


def test_certificates_are_found_by_their_names_and_must_belong_together(tmp_path):
    made = make_development_ca(tmp_path / "one", [])
    assert read_certificates(tmp_path / "one") == made
    other = make_development_ca(tmp_path / "two", [])
    made.key.write_bytes(other.key.read_bytes())
    with pytest.raises(InputError, match="must belong to"):
        read_certificates(tmp_path / "one")
    made.ca.unlink()
    with pytest.raises(InputError, match=r"ca.crt is missing.*fedpace certificates"):
        read_certificates(tmp_path / "one")
