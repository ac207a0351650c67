"""Ask a language model held-out questions, before and after its training."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from fedpace.core.adapter import Adapter
from fedpace.core.examples import Examples
from fedpace.experiment.config import EvaluationSection, Experiment
from fedpace.lora import AdaptedModel, tokenise
from fedpace.lora.answers import MULTIPLE_CHOICE, score
from fedpace.lora.choosing import MultipleChoice
from fedpace.lora.generation import generate, questions

Answer = Callable[[Adapter], list[str]]
"""A global adapter -> its answers to the questions, in their order."""


class Interview:
    """Questions from the held-out examples; the same ones for every adapter."""

    def __init__(self, experiment: Experiment, adapted: AdaptedModel, held_out: Examples) -> None:
        """Take the questions.

        Args:
            experiment: its [evaluation] says how many, and which metrics, which `check` knows.
            adapted: a language model.
            held_out: examples of the kind "instruct" or "chat".
        """
        section = experiment.evaluation
        self._section: EvaluationSection = section
        self._generated = [name for name in section.metrics if name != MULTIPLE_CHOICE]
        tokens_of = partial(
            tokenise, base=adapted.base, max_length=experiment.model.max_length,
            chat_template=experiment.data.chat_template,
        )  # fmt: skip
        count = max(section.samples, section.answers if self._generated else 0)
        self._asked = questions(
            tokens_of(held_out.take(range(min(len(held_out), 16 * count)))), count
        )
        self._choice: MultipleChoice | None = None
        if MULTIPLE_CHOICE in section.metrics:
            asked = held_out.take(range(min(len(held_out), section.answers)))
            self._choice = MultipleChoice(asked, tokens_of)
        self._adapted = adapted
        decode = adapted.base.tokenizer.decode
        self._prompt = [decode(q.prompt, skip_special_tokens=True) for q in self._asked]
        self._expected = [decode(q.expected, skip_special_tokens=True).strip() for q in self._asked]

    def _answers(self, adapter: Adapter) -> list[str]:
        return generate(
            self._adapted,
            adapter,
            [q.prompt for q in self._asked],
            max_new_tokens=self._section.max_new_tokens,
        )

    def report(self, initial: Adapter, trained: Mapping[str, Adapter]) -> dict[str, Any]:
        """Return what summary.json has of it.

        Args:
            initial: the adapter before any round.
            trained: the final adapter of each method.

        Returns:
            "samples": a list of {"prompt", "expected", "before", "after": {method: text}}; and
            "generated": {"before": {metric: value}, "after": {method: {metric: value}}}.
        """
        before = self._answers(initial)
        after = {method: self._answers(adapter) for method, adapter in trained.items()}
        samples = [
            {
                "prompt": self._prompt[i],
                "expected": self._expected[i],
                "before": before[i],
                "after": {method: answers[i] for method, answers in after.items()},
            }
            for i in range(min(self._section.samples, len(self._asked)))
        ]
        if not self._section.metrics:
            return {"samples": samples, "generated": None}
        generated = {
            "questions": len(self._choice) if self._choice else len(self._asked),
            "before": self._scores(initial, before),
            "after": {m: self._scores(trained[m], answers) for m, answers in after.items()},
        }
        return {"samples": samples, "generated": generated}

    def _scores(self, adapter: Adapter, answers: Sequence[str]) -> dict[str, float]:
        found = score(self._generated, answers, self._expected) if answers else {}
        if self._choice is not None:
            found[MULTIPLE_CHOICE] = self._choice.accuracy(self._adapted, adapter)
        return found
