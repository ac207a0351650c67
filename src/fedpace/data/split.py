"""Hold out some examples for evaluation."""

import re

import numpy as np

from fedpace.core.errors import InputError
from fedpace.core.examples import Examples
from fedpace.core.rng import rng_for


def essence(text: str) -> str:
    r"""Return the words of a text, so that white space, case and punctuation do not matter.

    Example:
        >>> essence("Return  the size,\nin bytes.") == essence("return the size in bytes")
        True
    """
    return " ".join(re.findall(r"\w+", text.lower())) or text


def hold_out(examples: Examples, share: float, seed: int) -> tuple[Examples, Examples]:
    """Split examples into training and test.

    Examples whose text is the same but for white space, case and punctuation stay on one side
    (for pairs: both texts). Where there are labels every class gives its share, to within one.

    Args:
        examples: M examples.
        share: the part of the texts to hold out, in (0, 1); at least one text is.
        seed: the run's seed; the draw is ``rng_for(seed, "split")``.

    Returns:
        (train, test), each in the order of `examples`.

    Raises:
        InputError: fewer than two different texts.
    """
    pairs = examples.text_pair or ("",) * len(examples)
    number: dict[str, int] = {}
    text_of = np.array(
        [
            number.setdefault(essence(f"{a}\n{b}"), len(number))
            for a, b in zip(examples.text, pairs, strict=True)
        ]
    )
    count = len(number)
    if count < 2:
        raise InputError(
            f"{len(examples)} examples hold {count} different text(s), too few to hold some out; "
            "name evaluation data by [data] eval"
        )
    rng = rng_for(seed, "split")
    order = rng.permutation(count)
    if examples.label is not None:
        _, first = np.unique(text_of, return_index=True)
        order = order[np.argsort(examples.label[first[order]], kind="stable")]
    held = max(1, round(share * count))
    # Evenly spaced places in an order sorted by label take the same share of every class.
    places = ((np.arange(held) + rng.random()) * count / held).astype(int)
    in_test = np.zeros(count, dtype=bool)
    in_test[order[places]] = True
    rows = in_test[text_of]
    return examples.take(np.flatnonzero(~rows)), examples.take(np.flatnonzero(rows))
