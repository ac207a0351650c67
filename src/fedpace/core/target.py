"""What a run is to reach: the accuracy or loss on held-out data at which the clock is read."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from fedpace.core.errors import InputError

_FORM = re.compile(r"\s*(accuracy|loss)\s*(>=|<=)\s*(\S+)\s*")
_DIRECTION = {"accuracy": ">=", "loss": "<="}


@dataclass(frozen=True, slots=True)
class Target:
    """A threshold on the evaluation after a round; accuracy from below, loss from above.

    Example:
        >>> target = Target.parse("accuracy >= 0.85")
        >>> str(target), target.reached({"accuracy": 0.9, "loss": 0.4})
        ('accuracy>=0.85', True)
    """

    metric: Literal["accuracy", "loss"]
    value: float

    def __post_init__(self) -> None:
        if self.metric == "accuracy" and not 0 < self.value <= 1:
            raise InputError(
                f"target accuracy is {self.value:g}; it is a share, above 0 and at most 1"
            )
        if self.metric == "loss" and not 0 < self.value < float("inf"):
            raise InputError(f"target loss is {self.value:g}; it must be above 0 and finite")

    @classmethod
    def parse(cls, text: str) -> "Target":
        """Read a target as the experiment file writes it.

        Args:
            text: "accuracy>=SHARE" or "loss<=VALUE".

        Raises:
            InputError: not of that form, or out of range.
        """
        allowed = "write 'accuracy>=0.85' (a share) or 'loss<=1.2'"
        match = _FORM.fullmatch(text)
        if match is None:
            raise InputError(f"target is {text!r}; {allowed}")
        metric, direction, number = match.groups()
        if direction != _DIRECTION[metric]:
            raise InputError(
                f"target is {text!r}, but {metric} is to be {_DIRECTION[metric]}; {allowed}"
            )
        try:
            value = float(number)
        except ValueError:
            raise InputError(f"target is {text!r}: {number!r} is no number; {allowed}") from None
        return cls("accuracy" if metric == "accuracy" else "loss", value)

    def reached(self, evaluation: Mapping[str, float]) -> bool:
        """Tell whether an evaluation reaches the target; one with a NaN or infinity does not.

        Where the loss is no number the model has diverged, and its accuracy says nothing.

        Args:
            evaluation: held-out metrics by name.

        Raises:
            InputError: the evaluation lacks the target's metric.
        """
        if self.metric not in evaluation:
            raise InputError(
                f"target is {str(self)!r}, but the evaluation has only "
                f"{', '.join(evaluation) or 'nothing'}; set the target on one of these"
            )
        measured = evaluation[self.metric]
        if not all(math.isfinite(value) for value in evaluation.values()):
            return False
        return measured >= self.value if self.metric == "accuracy" else measured <= self.value

    def refuse_held(self, evaluation: Mapping[str, float], where: str) -> None:
        """Refuse a target that holds before training: the time to it would be no training's.

        Args:
            evaluation: held-out metrics by name, of the model as it begins.
            where: the target stands, for the message.

        Raises:
            InputError: the target holds, or the evaluation lacks its metric.
        """
        if self.reached(evaluation):
            change = "raise" if self.metric == "accuracy" else "lower"
            raise InputError(
                f"{where} = {str(self)!r}: the model has {self.metric} "
                f"{evaluation[self.metric]:.4g} before training, so no time to the target can be "
                f"measured; {change} the target"
            )

    def __str__(self) -> str:
        return f"{self.metric}{_DIRECTION[self.metric]}{self.value}"
