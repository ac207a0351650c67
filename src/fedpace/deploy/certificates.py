"""Certificates for TLS: a development authority and a server certificate, or your own.

Who has a certificate of a public authority needs nothing of this but `read_certificates`.
"""

import ipaddress
import os
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedpace.core.errors import InputError

LOOPBACK = ("localhost", "127.0.0.1", "::1")
"""In every server certificate: Flower's own processes reach the server there."""


@dataclass(frozen=True, slots=True)
class Certificates:
    """What a server needs for TLS; clients need `ca` alone."""

    ca: Path
    certificate: Path
    key: Path


def read_certificates(folder: Path) -> Certificates:
    """Return the certificates in a folder: ca.crt, server.crt, server.key.

    Raises:
        InputError: one of them is missing, or they do not belong together.
    """
    found = Certificates(folder / "ca.crt", folder / "server.crt", folder / "server.key")
    for path in (found.ca, found.certificate, found.key):
        if not path.is_file():
            raise InputError(
                f"{path} is missing; put ca.crt, server.crt and server.key there, or make them "
                f"with: fedpace certificates {folder} --host NAME"
            )
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(
            found.certificate, found.key
        )
        ssl.create_default_context(cafile=found.ca)
    except ssl.SSLError as error:
        raise InputError(
            f"the certificates in {folder} cannot be used ({error.reason or error}); server.key "
            "must belong to server.crt, and ca.crt be a certificate"
        ) from None
    return found


def make_development_ca(folder: Path, hosts: Sequence[str], *, days: int = 365) -> Certificates:
    """Make a certificate authority and a server certificate signed by it.

    For development and closed networks: whoever holds ca.key can pose as the server. Keys are
    NIST P-256, readable by their owner alone.

    Args:
        folder: where ca.crt, ca.key, server.crt and server.key go; made where it is missing.
        hosts: names and addresses by which clients reach the server; loopback is always added.
        days: how long both are valid.

    Returns:
        The files for the server; ca.key is needed only to sign further certificates.

    Raises:
        InputError: a file of these names is there already, or a host is no name.
    """
    found = Certificates(folder / "ca.crt", folder / "server.crt", folder / "server.key")
    for path in (found.ca, folder / "ca.key", found.certificate, found.key):
        if path.exists():
            raise InputError(f"{path} exists and is not replaced; name another folder, or move it")
    names = [_general_name(host) for host in dict.fromkeys([*hosts, *LOOPBACK])]

    ca_key, server_key = _new_key(), _new_key()
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "FedPace development CA")])
    ca_id = x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key())
    ca_builder = (
        _builder(ca_name, ca_name, ca_key.public_key(), days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(sign_certificates=True), critical=True)
        .add_extension(ca_id, critical=False)
    )
    server_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "FedPace server")])
    server_public = server_key.public_key()
    server_builder = (
        _builder(server_name, ca_name, server_public, days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(sign_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(server_public), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ca_id), critical=False
        )
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_private(folder / "ca.key", _pem(ca_key))
    write_private(found.key, _pem(server_key))
    ca = ca_builder.sign(ca_key, hashes.SHA256())
    found.ca.write_bytes(ca.public_bytes(Encoding.PEM))
    server = server_builder.sign(ca_key, hashes.SHA256())
    found.certificate.write_bytes(server.public_bytes(Encoding.PEM))
    return found


def write_private(path: Path, content: bytes) -> None:
    """Write a new file that its owner alone can read, from the first byte on."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def _new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    labels = host.removeprefix("*.").split(".")
    if not all(label.replace("-", "").isalnum() and label.isascii() for label in labels):
        raise InputError(
            f"host {host!r} is neither a name nor an address; give it as clients will, without "
            "port or https://"
        )
    return x509.DNSName(host)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        # Clients whose clock is a little late must not find it from the future.
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=days))
    )


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
