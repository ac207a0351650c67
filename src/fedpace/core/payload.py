"""How many bits a method's messages hold: one record, computed once a method, both ways."""

from dataclasses import asdict, dataclass, replace

from fedpace.core.profile import System
from fedpace.core.sketch import Sketch

__all__ = ["Payload", "with_payload"]


@dataclass(frozen=True, slots=True)
class Payload:
    """Bits of a message, affine in the rank components it carries; headers included."""

    fixed_bits: float
    """What a client sends whatever its rank."""
    bits_per_rank: float
    """What a client sends for each rank component."""
    download_fixed_bits: float
    """What a client receives whatever its rank."""
    download_bits_per_rank: float
    """What a client receives for each rank component that its sketch needs."""

    def beside(self, up_bits: float, down_bits: float) -> "Payload":
        """Return it with so many bits more about each message."""
        return replace(
            self,
            fixed_bits=self.fixed_bits + up_bits,
            download_fixed_bits=self.download_fixed_bits + down_bits,
        )


def with_payload(system: System, payload: Payload, sketch: Sketch) -> System:
    """Return a system in which a method of that sketch sends and receives such messages."""
    return replace(system, sketch=sketch, **asdict(payload))
