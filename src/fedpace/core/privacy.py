"""What a run is asked to keep private of its clients, in numbers."""

from dataclasses import dataclass

from fedpace.core.errors import InputError


@dataclass(frozen=True, slots=True)
class Privacy:
    """Client-level differential privacy of the adapters that a run gives away (docs/privacy.md)."""

    clip_norm: float
    """C: longest update, as it is aggregated, without its weight."""
    noise_multiplier: float
    """z: standard deviation of the server's noise over the most that one client can add."""
    delta: float
    """Chance that epsilon does not hold, (0, 1)."""
    max_epsilon: float | None = None
    """What no client may pass; None: no limit."""

    def __post_init__(self) -> None:
        if not self.clip_norm > 0:
            raise InputError(f"clip_norm is {self.clip_norm!r}; give a norm above 0")
        if not self.noise_multiplier >= 0:
            raise InputError(f"noise_multiplier is {self.noise_multiplier!r}; give 0 or more")
        if not 0 < self.delta < 1:
            raise InputError(f"delta is {self.delta!r}; give a probability in (0, 1)")
        if self.max_epsilon is not None and not self.max_epsilon > 0:
            raise InputError(f"max_epsilon is {self.max_epsilon!r}; give one above 0, or none")
