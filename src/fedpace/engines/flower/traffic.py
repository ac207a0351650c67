"""What Flower's own requests take on the wire, beside the blocks that FedPace sends.

Each message costs requests of fixed size, whatever it carries: a node asks for it, fetches its four
parts, confirms it, announces the answer and pushes that one's parts; and every request is signed.
A node that waits asks again and again. Measured at the socket with Flower 1.41, the same to 1 % for
messages of 2, 55, 166 and 608 kB (`python benchmarks/flower_rounds.py`, docs/flower.md); a part
that is asked for before it is there takes 930 and 130 bytes more each time.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes of TCP's payload that belong to Flower; TLS and its handshakes are not in them."""

    message_up: int = 11_395
    """Requests about one task and its answer, from the client."""
    message_down: int = 2_940
    """What Flower's server answers to them."""
    empty_up: int = 9_205
    """Requests about an empty message and its answer, and these."""
    empty_down: int = 2_155
    poll_up: int = 853
    """One look for work."""
    poll_down: int = 128
    """The answer where there is none."""
    poll_seconds: float = 3.0
    """Between two looks of a node that waits."""

    def polls(self, answers: int, idle_seconds: float) -> tuple[int, int]:
        """Return the bytes of polls that bring nothing, up and down, at most.

        A look takes its own time beside the pause between two, the longer the busier the machines
        are, so that there are somewhat fewer.

        Args:
            answers: handed in; each is followed by a look at once.
            idle_seconds: of all clients together, without work.
        """
        count = answers + max(0.0, idle_seconds) / self.poll_seconds
        return round(count * self.poll_up), round(count * self.poll_down)
