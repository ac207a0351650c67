"""Clients on other machines that are not waited for: answers are taken as they come.

What was asked lives with the server's process. A task that is on its way when it ends is lost: a
resumed run counts it among those that were not answered.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from fedpace.core.messages import ClientTask
from fedpace.engines.flower.asked import Answer, Sent
from fedpace.engines.flower.engine import FlowerEngine, RoundStatus
from fedpace.federation.engine import RoundOutcome
from fedpace.federation.underway import Underway
from fedpace.wireless.service import Sending


@dataclass(slots=True, eq=False)
class OverlappingFlower(FlowerEngine):
    """An `OverlappingEngine` whose clients are Flower nodes, and an `Engine` still."""

    _came: dict[tuple[int, int], Answer] = field(init=False, default_factory=dict)
    """Answers that were not read yet, by client and round."""
    _stepped: float = field(init=False)

    def __post_init__(self) -> None:
        FlowerEngine.__post_init__(self)
        self._stepped = self._ended

    def stepped(self) -> float:
        """Return when the last step ended; evaluation and planning are part of the next beat."""
        return self._stepped

    def start(self, tasks: Sequence[ClientTask]) -> list[Underway]:
        """Ask clients for their tasks, now; who cannot be asked does not begin.

        Where nobody is there, it waits for somebody as long as for an answer, and the beat with it.
        """
        self._since_last_step()
        if not tasks:
            return []
        pending = self.asked.pending
        limit = self.deadline([*tasks, *(sent.task for sent in pending.values())])
        if not pending:
            before = self.now()
            self._wait_for_anyone(lambda: bool(self._there()), before + limit)
            self._first_echoes()
            self._stepped += self.now() - before
        return [self._underway(sent) for sent in self._send(tasks, limit, self.now())]

    def train(self, tasks: Sequence[ClientTask], underway: Sequence[Underway]) -> list[Underway]:
        """Return everything underway: clients train without being told again."""
        return list(underway)

    def advance(
        self,
        round_index: int,
        underway: Sequence[Underway],
        *,
        until: float = math.inf,
        arrivals: int | None = None,
    ) -> tuple[list[Underway], list[Underway]]:
        """Take what comes until then, or so many answers.

        What is on its way and not among `underway` counts no more. What is among `underway` and
        not on its way, as the server that asked is gone, has failed.

        Returns:
            Who has arrived or failed, in that order of time, and who has not.
        """
        beside = self._since_last_step()
        here = {(u.client, u.started_round): u for u in underway}
        self.asked.give_up(but=here)
        known = {sent.key for sent in self.asked.pending.values()}
        lost = [u for key, u in here.items() if key not in known]
        if self.echoes.sent == beside.echoes:
            self._echo_of_one_who_waits(round_index)
        status = RoundStatus(
            round_index, len(here), 0, 0, self.now(), until - self.now(), len(known)
        )

        def enough(answers: Sequence[Answer]) -> bool:
            arrived = sum(answer.arrived for answer in answers)
            nothing = until == math.inf and not self.asked.pending
            return nothing or (arrivals is not None and arrived >= arrivals)

        answers = sorted(self._take(until, enough, status), key=lambda a: (a.at, a.sent.key))
        self._came |= {answer.sent.key: answer for answer in answers}
        ended = [*lost, *(_ended(here.pop(a.sent.key), a) for a in answers)]
        for u in lost:
            del here[u.client, u.started_round]
        return ended, list(here.values())

    def read(self, ended: Sequence[Underway]) -> RoundOutcome:
        """Return what came of whoever has ended, and end the server's step."""
        keys = [(u.client, u.started_round) for u in ended]
        answers = [self._came.pop(key) for key in keys if key in self._came]
        outcome = self._outcome(answers, self._since_last_step())
        self.echoes.forget(self.now())
        self._stepped = self._ended
        return outcome

    def _underway(self, sent: Sent) -> Underway:
        """Return a task as part of the server's state; what is predicted of it stays open."""
        length = self._upload_bytes(sent.task)
        return Underway(
            client=sent.task.client,
            started_round=sent.task.round_index,
            sketch_rank=sent.task.sketch_rank,
            inverse_probability=1.0,
            started_seconds=sent.at,
            download_bytes=sent.download_bytes,
            upload_bytes=length,
            sending=Sending(sent.task.client, sent.at, 8.0 * length),
        )


def _ended(underway: Underway, answer: Answer) -> Underway:
    """Return a task as it ended."""
    if not answer.arrived:
        return underway
    sending = replace(underway.sending, bits_left=0.0, arrived_seconds=answer.at)
    return replace(underway, sending=sending)
