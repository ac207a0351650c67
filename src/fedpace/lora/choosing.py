"""Multiple choice: is the answer that the model holds for the likeliest the right one?"""

from collections.abc import Callable

import numpy as np

from fedpace.core.adapter import Adapter
from fedpace.core.errors import InputError
from fedpace.core.examples import Examples
from fedpace.lora.adapter import AdaptedModel
from fedpace.lora.evaluation import score_rows
from fedpace.lora.tokens import TokenisedExamples


class MultipleChoice:
    """Questions with the answers that they allow; the same ones for every adapter.

    The measure is "acc" of lm-evaluation-harness: the answer with the largest summed
    log-likelihood of its tokens, its end included, given the question.
    """

    def __init__(
        self, examples: Examples, tokenise: Callable[[Examples], TokenisedExamples]
    ) -> None:
        """Take the questions that have choices.

        Args:
            examples: of the kind "instruct".
            tokenise: as for the training, the loss on the response alone.

        Raises:
            InputError: none has choices.
        """
        every = examples.choices or ((),) * len(examples)
        asked = [i for i, choices in enumerate(every) if choices]
        if not asked or examples.response is None:
            raise InputError(
                "[evaluation] metrics has 'multiple-choice', and no held-out example says its "
                "choices; give them a column 'choices' (docs/data.md), or leave the metric out"
            )
        self._right = [every[i].index(examples.response[i]) for i in asked]
        self._counts = [len(every[i]) for i in asked]
        self._tokens = tokenise(
            Examples(
                "instruct",
                tuple(examples.text[i] for i in asked for _ in every[i]),
                response=tuple(choice for i in asked for choice in every[i]),
            )
        )

    def __len__(self) -> int:
        return len(self._right)

    def accuracy(self, adapted: AdaptedModel, adapter: Adapter) -> float:
        """Return the share of questions whose right answer is the likeliest to this adapter."""
        losses, _ = score_rows(adapted, adapter, self._tokens)
        each = np.split(losses, np.cumsum(self._counts)[:-1])
        chosen = [int(np.argmin(own)) for own in each]
        return float(np.mean(np.equal(chosen, self._right)))
