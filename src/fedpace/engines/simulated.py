"""Clients in this process, on a virtual clock: real training, computed seconds."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fedpace.core.adapter import AdapterLayout
from fedpace.core.messages import ClientTask
from fedpace.core.profile import ValueType
from fedpace.core.rng import rng_for
from fedpace.engines.clock import VirtualClock
from fedpace.engines.codec import decode, encode, encoded_bytes
from fedpace.federation.engine import Delivery, RoundOutcome, Train
from fedpace.wireless.network import Network, charge


class SimulatedEngine:
    """An `Engine` whose clients train in this process while a virtual clock counts the seconds.

    Every update is encoded and decoded as on a real link, so the bytes charged are the bytes of
    the message and the server aggregates what was sent.
    """

    def __init__(
        self,
        train: Train,
        network: Network,
        layout: AdapterLayout,
        *,
        seed: int,
        now: float = 0.0,
        upload_type: ValueType = "float32",
    ) -> None:
        """Prepare an engine.

        Args:
            train: trains the participants of a round together.
            network: devices, links and the rule that divides the band.
            layout: of what travels: the adapter, or the part of it that is trained.
            seed: the run's seed; fading and availability are drawn from its streams.
            now: where the clock stands, s; a resumed run starts where it was cut off.
            upload_type: how values travel on the uplink.
        """
        self._train, self._network, self._layout, self._seed = train, network, layout, seed
        self._upload_type: ValueType = upload_type
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

        trained = self._train(tasks)
        messages = [
            encode(
                u.delta, self._layout, self._upload_type,
                rng_for(self._seed, "noise", round_index, u.client),
            )
            for u in trained
        ]  # fmt: skip
        updates = [
            replace(update, delta=decode(message, self._layout, len(update.components)))
            for update, message in zip(trained, messages, strict=True)
        ]
        ranks = np.array([t.sketch_rank for t in tasks])
        # A residual client needs the whole adapter, any other its own components alone.
        whole = system.sketch.whole
        received = np.array(
            [
                (self._layout.rank if whole else t.sketch_rank)
                if t.received_rank is None
                else t.received_rank
                for t in tasks
            ]
        )
        upload_bytes = [len(message) for message in messages]
        start, share = charge(
            self._network,
            self._seed,
            round_index,
            np.array([t.client for t in tasks]),
            ranks,
            8.0 * np.array(upload_bytes),
            received,
        )
        self._advance(share.finish_seconds.tolist(), system.overhead_seconds)
        deliveries = [
            Delivery(
                download_bytes=encoded_bytes(self._layout, int(received[i])),
                upload_bytes=upload_bytes[i],
                start_seconds=float(start[i]),
                upload_seconds=float(share.finish_seconds[i] - start[i]),
                bandwidth_hz=float(share.bandwidth_hz[i]),
            )
            for i in range(len(tasks))
        ]
        return RoundOutcome(updates, deliveries, self._clock.now - began)

    def _advance(self, finish_seconds: Sequence[float], overhead_seconds: float) -> None:
        """Let every upload arrive, then the server's overhead pass."""
        for client, seconds in enumerate(finish_seconds):
            self._clock.schedule(seconds, ("arrived", client))
        while len(self._clock):
            self._clock.next_event()
        self._clock.schedule(overhead_seconds, "overhead")
        self._clock.next_event()
