"""Ask a language model held-out questions, before and after its training."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fedpace.core.adapter import Adapter
from fedpace.core.examples import Examples
from fedpace.experiment.config import EvaluationSection, Experiment
from fedpace.lora import AdaptedModel, tokenise
from fedpace.lora.answers import known, score
from fedpace.lora.generation import generate, questions

Answer = Callable[[Adapter], list[str]]
"""A global adapter -> its answers to the questions, in their order."""


class Interview:
    """Questions from the held-out examples; the same ones for every adapter."""

    def __init__(self, experiment: Experiment, adapted: AdaptedModel, held_out: Examples) -> None:
        """Take the questions.

        Args:
            experiment: its [evaluation] says how many, and which metrics.
            adapted: a language model.
            held_out: examples of the kind "instruct" or "chat".

        Raises:
            InputError: a metric is unknown.
        """
        section = experiment.evaluation
        known(section.metrics)
        self._section: EvaluationSection = section
        count = max(section.samples, section.answers if section.metrics else 0)
        tokens = tokenise(
            held_out.take(range(min(len(held_out), 4 * count))),
            adapted.base,
            max_length=experiment.model.max_length,
            chat_template=experiment.data.chat_template,
        )
        self._asked = questions(tokens, count)
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
        if not self._asked:
            return {"samples": [], "generated": None}
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
        return {"samples": samples, "generated": self._scores(before, after)}

    def _scores(
        self, before: Sequence[str], after: Mapping[str, Sequence[str]]
    ) -> dict[str, Any] | None:
        metrics = self._section.metrics
        if not metrics:
            return None
        return {
            "questions": len(self._asked),
            "before": score(metrics, before, self._expected),
            "after": {m: score(metrics, answers, self._expected) for m, answers in after.items()},
        }
