"""A client asks the server's proxy what stands between them, before each connection.

That is a key that is not known, or not any more, or a clock: Flower's node would say no more than
that it was turned away.
"""

import ssl
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.supercore.date import now
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message

from fedpace.core.errors import InputError

KNOCK_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What the proxy says."""

    known: bool
    """Whether the key may join."""
    fault: str
    """Why calls are refused; "" where they are not."""


def knock(server: str, ca: Path, key: Path) -> Answer | None:
    """Ask a server whether it takes this client.

    Args:
        server: "HOST:PORT".
        ca: its authority.
        key: this client's private key.

    Returns:
        Its answer; None where there is none, or the proxy is of an earlier version: Flower's node
        will say why.

    Raises:
        InputError: the key cannot be read.
    """
    try:
        private = load_ssh_private_key(key.read_bytes(), None)
        assert isinstance(private, ec.EllipticCurvePrivateKey)
    except (ValueError, AssertionError, OSError) as error:
        raise InputError(
            f"--key {key} is no private key of fedpace keys ({error or 'another type'}); "
            "make one with: fedpace keys add NAME"
        ) from None
    timestamp = now().isoformat()
    headers = {
        "flwr-public-key": b64encode(public_key_to_bytes(private.public_key())).decode(),
        "flwr-timestamp": timestamp,
        "flwr-signature": b64encode(sign_message(private, timestamp.encode("ascii"))).decode(),
    }
    try:
        answer = httpx.post(
            f"https://{server}/v1/fedpace/knock", headers=headers, timeout=KNOCK_SECONDS,
            verify=ssl.create_default_context(cafile=ca), trust_env=False,
        )  # fmt: skip
        table = answer.raise_for_status().json()
        return Answer(bool(table["known"]), str(table["fault"]))
    except (httpx.HTTPError, OSError, ValueError, KeyError, TypeError):
        return None
