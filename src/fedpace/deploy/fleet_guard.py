"""What Flower's server does not check of a client's calls, checked in front of it.

Flower 1.41 signs the time of a call, not its content, and accepts the same signature again for
305 seconds; and it believes a pushed message that it comes from the server, so that any client
with a key could send tasks to all others. The proxy refuses both.
"""

import binascii
from base64 import b64decode
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from flwr.common.constant import SUPERLINK_NODE_ID, SYSTEM_TIME_TOLERANCE, TIMESTAMP_TOLERANCE
from flwr.proto.fleet_pb2 import PushMessagesRequest
from google.protobuf.message import DecodeError

MEMORY_SECONDS = TIMESTAMP_TOLERANCE + 2 * SYSTEM_TIME_TOLERANCE
"""Longer than Flower takes a signed time for fresh, also where the clocks differ."""


class ReplayMemory:
    """Knows the signatures that were used while Flower would still accept them."""

    def __init__(self) -> None:
        self._used: dict[int, float] = {}

    def __len__(self) -> int:
        return len(self._used)

    def fault(self, signature: str | None, now: float) -> str | None:
        """Say why a call's signature is refused; None the first time it is seen.

        Args:
            signature: the header, an ECDSA signature in base64; None where there is none.
            now: monotonic seconds.
        """
        try:
            # (r, s) and (r, -s) are both valid: r alone tells whether it is the same signature.
            r, _ = decode_dss_signature(b64decode(signature or "", validate=True))
        except (ValueError, binascii.Error):
            return "no signature"
        for old in list(self._used):  # in the order of their time
            if self._used[old] > now - MEMORY_SECONDS:
                break
            del self._used[old]
        if r in self._used:
            return "a signature that was used before"
        self._used[r] = now
        return None


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
