"""How much of the examples `max_length` cuts away, and when that leaves nothing to be learned."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fedpace.core.errors import InputError
from fedpace.lora.tokens import TokenisedExamples

MOST_SPOILED = 0.75
"""With more examples without a question, or without the end of the answer, training is refused."""
_TO_HOLD = 0.95
"""The length that is advised holds so many of the examples whole."""


@dataclass(frozen=True, slots=True)
class Cuts:
    """Shares of the examples, and quantiles of their tokens before they are cut."""

    examples: int
    max_length: int
    tokens_p50: int
    tokens_p95: int
    tokens_max: int
    cut: float
    """Examples that lose anything."""
    prompts_cut: float
    """Prompts (or texts) that lose their oldest (or last) tokens."""
    prompts_lost: float
    """Prompts of which one token is left, or none."""
    answers_cut: float
    """Answers that lose their last tokens."""
    spoiled: float
    """Examples whose prompt is lost or whose answer is cut."""

    def to_json(self) -> dict[str, Any]:
        """Return the numbers, and the line, as JSON types."""
        return asdict(self) | {"told": self.told()}

    def told(self) -> str:
        """Return them as a line.

        Example:
            >>> print(Cuts(10, 64, 30, 70, 90, 0.1, 0.1, 0.0, 0.0, 0.0).told())
            10 examples of 30 tokens in the median, 70 at 95 %, 90 at most; max_length 64 cuts 10 %
        """
        line = (
            f"{self.examples} examples of {self.tokens_p50} tokens in the median, "
            f"{self.tokens_p95} at 95 %, {self.tokens_max} at most; max_length {self.max_length} "
            f"cuts {_percent(self.cut)}"
        )
        if self.spoiled:
            line += (
                f": {_percent(self.prompts_cut)} of the prompts ({_percent(self.prompts_lost)} to "
                f"a token or none) and {_percent(self.answers_cut)} of the answers"
            )
        return line


def cuts_of(examples: TokenisedExamples, max_length: int) -> Cuts:
    """Return what was cut of examples.

    Args:
        examples: at least one.
        max_length: what they were cut to.
    """
    prompt, answer = examples.whole.T
    lost_prompt, lost_answer = examples.lost.T
    emptied = (lost_prompt > 0) & (prompt - lost_prompt <= 1)
    p50, p95, most = np.quantile(prompt + answer, (0.5, _TO_HOLD, 1.0), method="higher")
    return Cuts(
        len(examples), max_length, int(p50), int(p95), int(most),
        cut=_share(lost_prompt + lost_answer > 0),
        prompts_cut=_share(lost_prompt > 0),
        prompts_lost=_share(emptied),
        answers_cut=_share(lost_answer > 0),
        spoiled=_share((lost_answer > 0) | (emptied & (answer > 0))),
    )  # fmt: skip


def refuse_spoiled(cuts: Cuts, longest: int | None) -> None:
    """Refuse a length at which most examples lack their question or the end of their answer.

    Args:
        cuts: of the training data.
        longest: that the model takes; None where it has no limit.

    Raises:
        InputError: with the length that would do.
    """
    if cuts.spoiled <= MOST_SPOILED:
        return
    wanted = -(-cuts.tokens_p95 // 8) * 8
    if longest is None or wanted <= longest:
        remedy = f"{wanted} holds 95 % of the examples whole"
    else:
        remedy = f"the model takes up to {longest}, {wanted} would hold 95 % of the examples whole"
    what = (
        f"{_percent(cuts.spoiled)} of the {cuts.examples} examples lose their prompt or the end "
        f"of their answer, so there is little to learn; {remedy}"
    )
    raise InputError(f"[model] max_length = {cuts.max_length}: {what}", public=what)


def _share(mask: np.ndarray) -> float:
    return float(np.mean(mask))


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share in (0, 1) or 0.01 <= share <= 0.99 else (
        f"{100 * share:.2g} %"
    )  # fmt: skip
