"""The numbers of a round that trackers draw as curves, by name."""

from collections.abc import Callable

from fedpace.core.record import RoundRecord

Write = Callable[[RoundRecord], None]
"""Adds a round to a tracker."""


def numbers_of(record: RoundRecord) -> dict[str, float]:
    """Return what there is to draw of a round: seconds, losses, bits, and so on."""
    numbers = {
        "round/seconds": record.round_seconds,
        "round/participants": float(len(record.participants)),
        "round/upload_bits": float(record.upload_bits),
        "train/loss": record.train_loss,
        "server/rate_factor": record.server_rate_factor,
        **{f"held_out/{k}": v for k, v in (record.evaluation or {}).items()},
        **{f"noise/{k}": v for k, v in (record.noise_scale or {}).items()},
    }
    return {name: value for name, value in numbers.items() if value is not None}
