"""Shaping classes of one interface, changed while packets flow.

A root of so many bit/s and a leaf for each client, by its address (HTB, u32). Leaves that sum above
their root let everything through, so a change shrinks before it grows, and the sum is checked.
Rates here are those of Ethernet frames; `gross` makes one of a payload's rate.
"""

import os
import re
import select
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from fedpace.core.errors import RunError

FRAME_BYTES, PAYLOAD_BYTES = 1514, 1448
"""Sizes of a full segment: Ethernet, IPv4 and TCP with timestamps take 66 bytes."""
FIRST = 0x10
"""Minor number of client 0's class."""
QUEUE_BYTES = 8 << 20
"""Queue of a leaf: all that TCP has under way at most. A shorter queue drops the end of a burst,
and a connection at 300 kbit/s notices only after seconds."""
_SHOWN = re.compile(
    rb"class htb 1:(?P<minor>[0-9a-f]+) .*?Sent (?P<sent>\d+) bytes (?P<packets>\d+) pkt "
    rb"\(dropped (?P<dropped>\d+).*?backlog (?P<backlog>\d+)(?P<unit>[KM]?)b",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Rate:
    """What a leaf is given, bit/s of frames."""

    rate_bps: float
    """Its own."""
    ceil_bps: float
    """With what it may borrow of others' that lies idle."""


@dataclass(frozen=True, slots=True)
class Count:
    """What passed through a leaf so far."""

    sent_bytes: int
    packets: int
    dropped: int
    backlog_bytes: int


def gross(payload_bps: float) -> float:
    """Return the rate of frames that carry payload at this rate."""
    return payload_bps * FRAME_BYTES / PAYLOAD_BYTES


class Classes:
    """Root and leaves of an interface; a context manager that keeps one `tc` open for changes."""

    def __init__(self, space: str, device: str, root_bps: float, leaves: Mapping[str, Rate]):
        """Describe them; made on entry.

        Args:
            space: namespace of the interface.
            device: its name.
            root_bps: of all leaves together.
            leaves: by the clients' IPv4 addresses, in the order of the clients; what comes from
                no such address passes beside them at 64 kbit/s.
        """
        self._space, self._device = space, device
        self._root, self._leaves = root_bps, list(leaves.values())
        self._addresses = list(leaves)

    def __enter__(self) -> "Classes":
        """Make root, leaves and filters."""
        command = ["tc", "-n", self._space, "-s", "-force", "-batch", "-"]
        self._tc = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True,  # an interrupt from the terminal is the testbed's to handle
        )  # fmt: skip
        _check(self._root, self._leaves)
        self._tell(f"qdisc add dev {self._device} root handle 1: htb default 2")
        self._tell(self._class("add", "1:", 1, Rate(self._root, self._root)))
        self._tell(self._class("add", "1:", 2, Rate(64e3, 64e3)))
        for n, (address, leaf) in enumerate(zip(self._addresses, self._leaves, strict=True)):
            minor = FIRST + n
            self._tell(self._class("add", "1:1", minor, leaf))
            self._tell(f"qdisc add dev {self._device} parent 1:{minor:x} bfifo limit {QUEUE_BYTES}")
            self._tell(f"filter add dev {self._device} parent 1: protocol ip prio 1 u32 "
                       f"match ip src {address}/32 flowid 1:{minor:x}")  # fmt: skip
        self.count()
        return self

    def __exit__(self, *error: object) -> None:
        """End the open `tc`; the classes go with their namespace."""
        self._tc.kill()
        self._tc.wait()
        for pipe in (self._tc.stdin, self._tc.stdout):
            if pipe is not None:
                pipe.close()

    @property
    def root_bps(self) -> float:
        """What the root has now."""
        return self._root

    def leaf(self, client: int) -> Rate:
        """Return what a client's leaf has now."""
        return self._leaves[client]

    def change(self, root_bps: float, leaves: Mapping[int, Rate]) -> None:
        """Change the root and some leaves; returns when the kernel has done it.

        Raises:
            RunError: the leaves would sum above the root, or the kernel refuses.
        """
        after = list(self._leaves)
        for client, leaf in leaves.items():
            after[client] = leaf
        _check(root_bps, after)
        changed = [n for n, leaf in enumerate(after) if leaf != self._leaves[n]]
        shrink = [n for n in changed if after[n].rate_bps <= self._leaves[n].rate_bps]
        for n in shrink:
            self._tell(self._class("change", "1:1", FIRST + n, after[n]))
        if root_bps != self._root:
            self._tell(self._class("change", "1:", 1, Rate(root_bps, root_bps)))
        for n in (n for n in changed if n not in shrink):
            self._tell(self._class("change", "1:1", FIRST + n, after[n]))
        self._root, self._leaves = root_bps, after
        if changed:
            self.count()  # its answer comes after the changes

    def count(self) -> list[Count]:
        """Read what passed through each leaf so far, by client."""
        self._tell(f"class show dev {self._device}")
        found: dict[int, Count] = {}
        text = b""
        wanted = len(self._leaves) + 2
        while len(found) < wanted:
            text += self._heard()
            if b"Error" in text or b"rror:" in text:
                raise RunError(f"tc: {text.decode(errors='replace').strip().splitlines()[0]}; "
                               "fedpace testbed --check says what is missing")  # fmt: skip
            found = {int(m["minor"], 16): _count(m) for m in _SHOWN.finditer(text)}
        while self._waits(0.002):  # the rest of the last entry
            self._heard()
        return [found[FIRST + n] for n in range(len(self._leaves))]

    def _class(self, verb: str, parent: str, minor: int, leaf: Rate) -> str:
        return (
            f"class {verb} dev {self._device} parent {parent} classid 1:{minor:x} htb "
            f"rate {max(8, round(leaf.rate_bps))}bit ceil {max(8, round(leaf.ceil_bps))}bit "
            f"quantum {FRAME_BYTES}"
        )

    def _tell(self, line: str) -> None:
        assert self._tc.stdin is not None
        try:
            self._tc.stdin.write(line.encode() + b"\n")
            self._tc.stdin.flush()
        except BrokenPipeError:
            raise RunError("tc ended; fedpace testbed --check says what is missing") from None

    def _heard(self) -> bytes:
        assert self._tc.stdout is not None
        if not self._waits(5.0):
            raise RunError("tc does not answer; fedpace testbed --check says what is missing")
        text = os.read(self._tc.stdout.fileno(), 1 << 16)
        if not text:
            raise RunError("tc ended; fedpace testbed --check says what is missing")
        return text

    def _waits(self, seconds: float) -> bool:
        assert self._tc.stdout is not None
        return bool(select.select([self._tc.stdout.fileno()], [], [], seconds)[0])


def _check(root_bps: float, leaves: list[Rate]) -> None:
    total = sum(leaf.rate_bps for leaf in leaves)
    if total > root_bps * (1 + 1e-9) + 8:
        raise RunError(
            f"the clients' classes would sum to {total:.0f} bit/s, above their root's "
            f"{root_bps:.0f}, and HTB would let all of it pass; give the shares of one band"
        )


def _count(found: re.Match[bytes]) -> Count:
    backlog = int(found["backlog"]) * {b"": 1, b"K": 1024, b"M": 1 << 20}[found["unit"]]
    return Count(int(found["sent"]), int(found["packets"]), int(found["dropped"]), backlog)
