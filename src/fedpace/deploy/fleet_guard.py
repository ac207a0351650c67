"""What of a client's call is checked in front of Flower's server, before its body is read.

Flower 1.41 holds a body whole before it looks at the key, however long it is; it signs the time of
a call, not its content, and accepts the same signature again for 305 seconds; and it believes a
pushed message that it comes from the server, so that any client with a key could send tasks to all
others. Here a call's key, time and signature are checked from its headers alone.
"""

import binascii
from base64 import b64decode
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from flwr.common.constant import SUPERLINK_NODE_ID, SYSTEM_TIME_TOLERANCE, TIMESTAMP_TOLERANCE
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.supercore.primitives.asymmetric import bytes_to_public_key, verify_signature
from google.protobuf.message import DecodeError

from fedpace.core.errors import InputError
from fedpace.deploy.keys import FILE, read_keys

Headers = Iterable[tuple[bytes, bytes]]
"""As they came, names in lower case."""
PASSED = ("accept", "content-type", "content-length", "content-encoding")
"""Headers that are passed on beside those of Flower."""

MEMORY_SECONDS = TIMESTAMP_TOLERANCE + 2 * SYSTEM_TIME_TOLERANCE
"""Longer than Flower takes a signed time for fresh, also where the clocks differ."""


class ReplayMemory:
    """Knows the signatures that were used while Flower would still accept them."""

    def __init__(self) -> None:
        self._used: dict[int, float] = {}

    def __len__(self) -> int:
        return len(self._used)

    def fault(self, signature: bytes, now: float) -> str | None:
        """Say why a call's signature is refused; None the first time it is seen.

        Args:
            signature: ECDSA, in DER.
            now: monotonic seconds.
        """
        try:
            # (r, s) and (r, -s) are both valid: r alone tells whether it is the same signature.
            r, _ = decode_dss_signature(signature)
        except ValueError:
            return "no signature"
        for old in list(self._used):  # in the order of their time
            if self._used[old] > now - MEMORY_SECONDS:
                break
            del self._used[old]
        if r in self._used:
            return "a signature that was used before"
        self._used[r] = now
        return None


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a call is refused."""

    status: int
    reason: str
    client: str = ""
    """The name of the key; "" where that is not known."""


class KeyFile:
    """The keys that may call, as the file has them now."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._seen = folder, (-1, -1)
        self._names: dict[bytes, str] = {}

    def names(self) -> Mapping[bytes, str]:
        """Return each key, as Flower sends it, with its client's name.

        While the file cannot be read those count that it had.
        """
        if (now := file_version(self._folder)) != self._seen:
            try:
                self._names = {key.pem: key.name for key in read_keys(self._folder)}
            except (InputError, OSError):
                return self._names
            self._seen = now
        return self._names


def file_version(folder: Path) -> tuple[int, int]:
    """Return what differs when the file of keys was written again."""
    path = folder / FILE
    if not path.exists():
        return 0, 0
    found = path.stat()
    return found.st_mtime_ns, found.st_ino


def passes(header: str) -> bool:
    """Say whether a header is passed on."""
    return header in PASSED or header.startswith("flwr-")


def caller_fault(
    headers: Headers,
    names: Mapping[bytes, str],
    replays: "ReplayMemory",
    seconds: float,
    monotonic_seconds: float,
) -> Fault | str:
    """Check who calls, and when it signed; nothing of the body is needed.

    Args:
        headers: of the call.
        names: of the keys that may call.
        replays: knows the signatures that were used.
        seconds: now, since 1970.
        monotonic_seconds: now, for `replays`.

    Returns:
        The client's name, or why the call is refused.
    """
    given = [(name.decode("latin-1").lower(), value) for name, value in headers]
    counts = Counter(name for name, _ in given)
    # Who reads the first of two, and who the last, would see different calls.
    if twice := sorted(name for name, count in counts.items() if count > 1 and passes(name)):
        return Fault(400, f"the header {twice[0]} is there {counts[twice[0]]} times")
    table = dict(given)
    try:
        key = b64decode(table.get("flwr-public-key", b""), validate=True)
        signature = b64decode(table.get("flwr-signature", b""), validate=True)
        timestamp = table.get("flwr-timestamp", b"").decode("ascii")
        ahead = datetime.fromisoformat(timestamp).timestamp() - seconds
    except (ValueError, binascii.Error, OverflowError):
        return Fault(401, "no key, signature or time that can be read")
    client = names.get(key)
    if client is None:
        return Fault(401, "its key is not among those that may join")
    if not verify_signature(bytes_to_public_key(key), timestamp.encode("ascii"), signature):
        return Fault(401, "its signature is not of its key", client)
    if reason := clock_fault(ahead):
        return Fault(401, reason, client)
    if reason := replays.fault(signature, monotonic_seconds):
        return Fault(401, reason, client)
    return client


def clock_fault(ahead_seconds: float) -> str | None:
    """Say what is wrong with a client's clock; None where Flower takes it.

    Args:
        ahead_seconds: how far it is ahead of the server's; below 0 where it is behind.
    """
    oldest = TIMESTAMP_TOLERANCE + SYSTEM_TIME_TOLERANCE
    if -oldest < ahead_seconds < SYSTEM_TIME_TOLERANCE:
        return None
    way = "ahead of" if ahead_seconds > 0 else "behind"
    return (
        f"the client's clock is {abs(ahead_seconds):.0f} s {way} the server's; it may be "
        f"{SYSTEM_TIME_TOLERANCE:.0f} s ahead and {oldest:.0f} s behind: set the one that is wrong"
    )


def signed_before(timestamp: str | None, seconds: float) -> bool:
    """Tell whether a call was signed before a time, or does not say when.

    Args:
        timestamp: the header, which is what Flower's clients sign; None where there is none.
        seconds: since 1970.
    """
    try:
        return datetime.fromisoformat(timestamp or "").timestamp() < seconds
    except ValueError:
        return True


def push_fault(body: bytes) -> str | None:
    """Say why pushed messages are refused: a client may only answer, and only for itself."""
    request = PushMessagesRequest()
    try:
        request.ParseFromString(body)
    except DecodeError:
        return "no protobuf message"
    for message in request.messages_list:
        metadata = message.metadata
        if metadata.src_node_id != request.node.node_id:
            return f"node {request.node.node_id} sends as node {metadata.src_node_id}"
        if metadata.dst_node_id != SUPERLINK_NODE_ID or not metadata.reply_to_message_id:
            return f"node {metadata.src_node_id} sends what is no answer to the server"
    return None
