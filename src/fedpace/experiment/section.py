"""What every section of the experiment file is, and the numbers and words that it may hold."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from fedpace.core.profile import LEAST, MOST
from fedpace.core.target import Target


def _a_target(text: str) -> str:
    Target.parse(text)
    return text


def _none_or_enough(value: float) -> float:
    if 0 < value < LEAST:
        raise PydanticCustomError("too_small", f"it takes 0, or {LEAST:g} or more")
    return value


# Within these limits products and sums of a few numbers stay finite.
Positive = Annotated[float, Field(gt=0, ge=LEAST, le=MOST, allow_inf_nan=False)]
NonNegative = Annotated[
    float, Field(ge=0, le=MOST, allow_inf_nan=False), AfterValidator(_none_or_enough)
]
Name = Annotated[str, Field(min_length=1)]
"""Name of a model or data set; an empty one would be the folder that the command is run in."""
Rate = Annotated[float, Field(gt=0, le=3.4e38, allow_inf_nan=False)]
"""A step size, in float32: whoever wants to see a run diverge may."""
Whole = Annotated[int, Field(ge=0, le=10**9)]
Count = Annotated[int, Field(ge=1, le=10**9)]
Goal = Annotated[str, AfterValidator(_a_target)]
"""A target as `Target.parse` reads it."""


class Section(BaseModel):
    """A table of the file: unknown keys are errors, and no value is turned into another type."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True
    )
