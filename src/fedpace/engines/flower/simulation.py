"""Clients that Flower simulates, on the virtual clock: its nodes train, the seconds are computed.

In Flower's simulation many clients share a machine's cores, so what they take tells nothing of
devices. Who answers when is decided by the profiles, as in this process; so a run over many cores,
or a cluster, ends where `fedpace run` does, and resumes to the same bits.
"""

import time
from collections.abc import Callable, Sequence

from flwr.app import Message, MessageType
from flwr.serverapp import Grid

from fedpace.core.errors import RunError
from fedpace.core.messages import ClientTask, ClientUpdate
from fedpace.engines.flower.messages import Wire, read_answer, task_content, told
from fedpace.engines.flower.roster import Roster
from fedpace.engines.overlapping import OverlappingSimulation
from fedpace.wireless.network import Network

POLL_SECONDS = 0.05


class SimulatedFleet(OverlappingSimulation):
    """An engine on the virtual clock whose clients are Flower nodes."""

    def __init__(
        self,
        grid: Grid,
        roster: Roster,
        wire: Wire,
        network: Network,
        *,
        seed: int,
        patience_seconds: float,
        now: float = 0.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Prepare an engine.

        Args:
            grid: Flower's.
            roster: says which node a client is on.
            wire: how messages are read.
            network: devices, links and the rule that divides the band.
            seed: the run's seed.
            patience_seconds: without any answer for so long, of real time, the run ends.
            now: where the virtual clock stands, s.
            sleep: passes real time.
        """
        super().__init__(_nobody_here, network, wire.exchange, seed=seed, now=now)
        self._grid, self._roster, self._wire = grid, roster, wire
        self._patience, self._sleep = patience_seconds, sleep

    def _answers(
        self, tasks: Sequence[ClientTask], down: Sequence[bytes]
    ) -> list[tuple[bytes, float]]:
        """Have the nodes train, and wait for all of them.

        Raises:
            RunError: one of them is gone, failed, or does not answer: there is nothing to go on
                with, as on the virtual clock it did answer.
        """
        self._roster.poll()
        names = self._grid.push_messages(
            [self._message(task, body) for task, body in zip(tasks, down, strict=True)]
        )
        waiting, found = dict(zip(names, tasks, strict=True)), dict[int, tuple[bytes, float]]()
        waited = 0.0
        while waiting:
            for reply in self._grid.pull_messages(list(waiting)):
                task = waiting.pop(reply.metadata.reply_to_message_id)
                if reply.has_error():
                    raise self._lost(task, told(reply.error.reason or "no reason given"))
                body, loss, _ = read_answer(reply.content, task, self._wire)
                found[task.client], waited = (body, loss), 0.0
            if waiting:
                if waited > self._patience:
                    raise self._lost(next(iter(waiting.values())), f"no answer in {waited:.0f} s")
                self._sleep(POLL_SECONDS)
                waited += POLL_SECONDS
        return [found[task.client] for task in tasks]

    def _message(self, task: ClientTask, body: bytes) -> Message:
        node = self._roster.node_of(task.client)
        if node is None:
            raise self._lost(task, "its node is gone")
        return Message(
            task_content(task, self._wire, body, float("inf")), dst_node_id=node,
            message_type=MessageType.TRAIN, group_id=str(task.round_index),
        )  # fmt: skip

    def _lost(self, task: ClientTask, reason: str) -> RunError:
        name = self._roster.names[task.client]
        return RunError(
            f"simulated client {name} did not train in round {task.round_index + 1}: {reason}; go "
            "on with the run folder once that is mended"
        )


def _nobody_here(tasks: Sequence[ClientTask]) -> Sequence[ClientUpdate]:
    raise AssertionError("its nodes train")
