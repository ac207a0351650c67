"""Clients in this process, on a virtual clock: real training, computed seconds."""

from collections.abc import Sequence

import numpy as np

from fedpace.core.messages import ClientTask
from fedpace.core.profile import Floats
from fedpace.core.rng import rng_for
from fedpace.engines.clock import VirtualClock
from fedpace.engines.exchange import (
    Exchange,
    decode_tasks,
    decode_update,
    encode_task,
    encode_update,
)
from fedpace.federation.engine import Delivery, RoundOutcome, Train
from fedpace.wireless.bandwidth import Allocation
from fedpace.wireless.network import Network, charge


class SimulatedEngine:
    """An `Engine` whose clients train in this process while a virtual clock counts the seconds.

    Every task and every update is encoded and decoded as on a real link, so the bytes charged are
    the bytes of the messages, a client trains on what it was sent, and the server aggregates what
    came back.
    """

    def __init__(
        self,
        train: Train,
        network: Network,
        exchange: Exchange,
        *,
        seed: int,
        now: float = 0.0,
    ) -> None:
        """Prepare an engine.

        Args:
            train: trains the participants of a round together.
            network: devices, links and the rule that divides the band.
            exchange: what travels, and how.
            seed: the run's seed; fading and availability are drawn from its streams.
            now: where the clock stands, s; a resumed run starts where it was cut off.
        """
        self._train, self._network, self._exchange, self._seed = train, network, exchange, seed
        self._clock = VirtualClock(now)

    def now(self) -> float:
        """Simulated seconds since the run began."""
        return self._clock.now

    def run_round(self, round_index: int, tasks: Sequence[ClientTask]) -> RoundOutcome:
        """Train those who answer, send their updates, and move the clock to the round's end."""
        clients, system = self._network.clients, self._network.system
        answers = rng_for(self._seed, "availability", round_index).random(len(clients))
        tasks = [t for t in tasks if answers[t.client] < clients.availability[t.client]]
        began = self._clock.now
        if not tasks:
            self._advance([], system.overhead_seconds)
            return RoundOutcome([], [], self._clock.now - began)

        down = [encode_task(self._exchange, task) for task in tasks]
        trained = self._answers(tasks, down)
        up = [message for message, _ in trained]
        start, share = self._charge(round_index, tasks, down, up)
        updates = [
            decode_update(self._exchange, message, task, train_loss)
            for (message, train_loss), task in zip(trained, tasks, strict=True)
        ]
        self._advance(share.finish_seconds.tolist(), system.overhead_seconds)
        deliveries = [
            Delivery(
                download_bytes=len(down[i]),
                upload_bytes=len(up[i]),
                start_seconds=float(start[i]),
                upload_seconds=float(share.finish_seconds[i] - start[i]),
                bandwidth_hz=float(share.bandwidth_hz[i]),
            )
            for i in range(len(tasks))
        ]
        return RoundOutcome(updates, deliveries, self._clock.now - began)

    def _answers(
        self, tasks: Sequence[ClientTask], down: Sequence[bytes]
    ) -> list[tuple[bytes, float]]:
        """Have clients do their tasks, as they see them; returns encoded updates and losses."""
        trained = self._train(decode_tasks(self._exchange, down, tasks))
        return [
            (encode_update(self._exchange, update, task), update.train_loss)
            for update, task in zip(trained, tasks, strict=True)
        ]

    def _charge(
        self,
        round_index: int,
        tasks: Sequence[ClientTask],
        down: Sequence[bytes],
        up: Sequence[bytes],
    ) -> tuple[Floats, Allocation]:
        """Charge for the bytes of the messages, both ways."""
        return charge(
            self._network,
            self._seed,
            round_index,
            np.array([t.client for t in tasks]),
            np.array([t.sketch_rank for t in tasks]),
            8.0 * np.array([len(message) for message in up]),
            8.0 * np.array([len(message) for message in down]),
            now=self._clock.now,
        )

    def _advance(self, finish_seconds: Sequence[float], overhead_seconds: float) -> None:
        """Let every upload arrive, then the server's overhead pass."""
        for client, seconds in enumerate(finish_seconds):
            self._clock.schedule(seconds, ("arrived", client))
        while len(self._clock):
            self._clock.next_event()
        self._clock.schedule(overhead_seconds, "overhead")
        self._clock.next_event()
