"""Who may join: the public keys of the clients, in one file, and Flower's list of them.

The file is in OpenSSH's form, a key a line with the client's name behind it, and it is the truth:
`sync_keys` makes a running server agree with it. Flower takes NIST curves only and keeps its own
list in memory, so a server that starts again is told again.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_public_key,
)
from flwr.proto.control_pb2 import ListNodesRequest, RegisterNodeRequest, UnregisterNodeRequest
from flwr.proto.node_pb2 import NodeInfo
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, uses_nist_ec_curve

from fedpace.core.errors import InputError, RunError
from fedpace.deploy.certificates import write_private

FILE = "authorized_keys"
"""Name of the file in a folder of keys."""


@dataclass(frozen=True, slots=True)
class ClientKey:
    """A client that may join."""

    name: str
    public_key: str
    """As in OpenSSH's public key files: type and base64, nothing behind."""

    @property
    def pem(self) -> bytes:
        """The key as Flower knows it."""
        key = load_ssh_public_key(self.public_key.encode())
        assert isinstance(key, ec.EllipticCurvePublicKey)
        return public_key_to_bytes(key)


@dataclass(frozen=True, slots=True)
class Changes:
    """What `sync_keys` changed: names of clients let in, and node ids shut out."""

    registered: tuple[str, ...]
    unregistered: tuple[int, ...]


def make_key(folder: Path, name: str) -> Path:
    """Make a client's key pair: NAME, for the client alone, and NAME.pub.

    Returns:
        The public key's file.

    Raises:
        InputError: the name cannot be one, or the files are there already.
    """
    _check_name(name)
    private, public = folder / name, folder / f"{name}.pub"
    for path in (private, public):
        if path.exists():
            raise InputError(f"{path} exists and is not replaced; choose another name, or move it")
    key = ec.generate_private_key(ec.SECP384R1())
    folder.mkdir(parents=True, exist_ok=True)
    write_private(private, key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    text = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    public.write_bytes(text + b" " + name.encode() + b"\n")
    return public


def read_public_key(path: Path) -> str:
    """Read a public key file and check that Flower takes it.

    Raises:
        InputError: no such file, or not a NIST elliptic-curve key in OpenSSH's form.
    """
    if not path.is_file():
        raise InputError(f"there is no public key {path}; make one with: fedpace keys add NAME")
    return _checked(path.read_text("utf-8"), str(path))


def read_keys(folder: Path) -> list[ClientKey]:
    """Read the keys that may join; none where there is no file yet."""
    path = folder / FILE
    if not path.exists():
        return []
    keys = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        words = line.split()
        if len(words) != 3:
            raise InputError(f"{path} line {number} is not 'TYPE KEY NAME'; correct or remove it")
        _check_name(words[2])
        keys.append(ClientKey(words[2], _checked(line, f"{path} line {number}")))
    return keys


def add_key(folder: Path, name: str, public_key: str) -> None:
    """Let a client in.

    Raises:
        InputError: the name or the key is there already.
    """
    _check_name(name)
    keys = read_keys(folder)
    for key in keys:
        if key.name == name or key.public_key == public_key:
            raise InputError(
                f"{folder / FILE} has {'the name' if key.name == name else 'the key of'} "
                f"{key.name!r} already; revoke it first, or choose another"
            )
    _write_keys(folder, [*keys, ClientKey(name, public_key)])


def revoke_key(folder: Path, name: str) -> None:
    """Shut a client out.

    Raises:
        InputError: no client of that name.
    """
    keys = read_keys(folder)
    if name not in {key.name for key in keys}:
        known = ", ".join(key.name for key in keys) or "none"
        raise InputError(f"{folder / FILE} has no client {name!r}; there are {known}")
    _write_keys(folder, [key for key in keys if key.name != name])


def sync_keys(folder: Path, address: str, ca: Path | None) -> Changes:
    """Make a running server's list of clients that of the file.

    Args:
        folder: of the keys.
        address: of Flower's server itself, on loopback, "127.0.0.1:PORT"; not the proxy's.
        ca: authority of the server's certificate; None where it serves without TLS.

    Raises:
        RunError: the server does not answer, or answers with an error.
    """
    keys = {key.pem: key for key in read_keys(folder)}
    with _control(address, ca) as client:
        nodes = {n.public_key: n for n in _nodes(client)}
        missing = [key for pem, key in keys.items() if pem not in nodes]
        for key in missing:
            client.RegisterNode(RegisterNodeRequest(public_key=key.pem, name=key.name))
        gone = [node.node_id for pem, node in nodes.items() if pem not in keys]
        for node_id in gone:
            client.UnregisterNode(UnregisterNodeRequest(node_id=node_id))
    return Changes(tuple(key.name for key in missing), tuple(gone))


def list_clients(folder: Path, address: str, ca: Path | None) -> list[tuple[str, int | None, str]]:
    """Return (name, node id, status) of every key in the file, as a running server knows it.

    Raises:
        RunError: the server does not answer, or answers with an error.
    """
    with _control(address, ca) as client:
        nodes = {n.public_key: n for n in _nodes(client)}
    found: list[tuple[str, int | None, str]] = []
    for key in read_keys(folder):
        node = nodes.get(key.pem)
        found.append((key.name, None, "not registered") if node is None
                     else (key.name, node.node_id, node.status))  # fmt: skip
    return found


def _nodes(client: ControlHttpClient) -> list[NodeInfo]:
    nodes = client.ListNodes(ListNodesRequest()).nodes_info
    return [node for node in nodes if node.status != "unregistered"]


@contextmanager
def _control(address: str, ca: Path | None) -> Iterator[ControlHttpClient]:
    try:
        with ControlHttpClient.from_server_address(
            address,
            insecure=ca is None,
            root_certificates=None if ca is None else ca.read_bytes(),
            interceptors=[RuntimeVersionHttpInterceptor(component_name="flwr CLI")],
        ) as client:
            yield client
    except httpx.HTTPStatusError as error:
        raise RunError(
            f"Flower's server at {address} refuses: {error.response.status_code} "
            f"{error.response.text[:200]}; it must be its own address, not the proxy's"
        ) from None
    except httpx.TransportError as error:
        raise RunError(f"Flower's server at {address} does not answer ({error}); is fedpace serve "
                       "running, and is this its own address?") from None  # fmt: skip


def _checked(text: str, place: str) -> str:
    try:
        key = load_ssh_public_key(text.encode())
        if not isinstance(key, ec.EllipticCurvePublicKey) or not uses_nist_ec_curve(key):
            raise ValueError("the type is another")
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InputError(
            f"{place} is no NIST elliptic-curve key in OpenSSH's form ({error}); make one with "
            "fedpace keys add NAME, or ssh-keygen -t ecdsa -b 384"
        ) from None
    return " ".join(text.split()[:2])


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise InputError(
            f"{name!r} cannot name a client; use letters, digits, '.', '_' and '-', at most 64"
        )


def _write_keys(folder: Path, keys: Sequence[ClientKey]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{FILE}.part"
    part.write_text("".join(f"{k.public_key} {k.name}\n" for k in keys), encoding="utf-8")
    part.replace(folder / FILE)
