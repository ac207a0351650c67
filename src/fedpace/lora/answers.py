"""How good answers are: the metrics of generated text and of a choice, by name."""

import re
from collections.abc import Callable, Sequence

from fedpace.core.errors import InputError, MissingExtraError

Score = Callable[[str, str], float]
"""(answer, expected) -> 0 to 1."""
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


def exact_match(answer: str, expected: str) -> float:
    """Return 1.0 where the final numbers are equal, or without one in what is expected the texts.

    A problem of arithmetic is answered by its last number ("#### 72" of gsm8k), whatever leads to
    it; other texts are compared without regard to case and white space.

    Example:
        >>> exact_match("48 + 24 makes 72.0", "Natalia sold 72 clips. #### 72")
        1.0
        >>> exact_match(" The correct answer is true", "the correct answer is  TRUE")
        1.0
    """
    wanted = _final_number(expected)
    if wanted is not None:
        return float(_final_number(answer) == wanted)
    return float(answer.lower().split() == expected.lower().split())


def rouge_l(answer: str, expected: str) -> float:
    """Return the F-measure of ROUGE-L (Lin, 2004), by Google's `rouge-score`.

    Raises:
        MissingExtraError: the package is not installed.
    """
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError:
        raise MissingExtraError("rouge-score", "metrics") from None
    return float(RougeScorer(["rougeL"]).score(expected, answer)["rougeL"].fmeasure)


SCORES: dict[str, Score] = {"exact-match": exact_match, "rouge-l": rouge_l}

MULTIPLE_CHOICE = "multiple-choice"
"""The metric that needs no generated text: is the likeliest of the allowed answers the right one?
"""


def known(names: Sequence[str]) -> None:
    """Raise `InputError` for a metric that there is not."""
    for name in names:
        if name not in (*SCORES, MULTIPLE_CHOICE):
            raise InputError(
                f"[evaluation] metrics has {name!r}; known are {', '.join(SCORES)}, "
                f"{MULTIPLE_CHOICE} "
                "(loss, perplexity and accuracy are always there)"
            )


def score(
    names: Sequence[str], answers: Sequence[str], expected: Sequence[str]
) -> dict[str, float]:
    """Return the mean of each metric over the answers.

    Args:
        names: of `SCORES`.
        answers: what the model said, at least one.
        expected: what it should have said, in the same order.
    """
    pairs = list(zip(answers, expected, strict=True))
    return {name: sum(SCORES[name](a, e) for a, e in pairs) / len(pairs) for name in names}


def _final_number(text: str) -> float | None:
    found = _NUMBER.findall(text)
    return float(found[-1].replace(",", "")) if found else None
