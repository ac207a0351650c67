"""Clients in this process, on a virtual clock, that are not waited for."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fedpace.core.errors import InputError
from fedpace.core.messages import ClientTask
from fedpace.core.profile import Floats
from fedpace.core.rng import rng_for
from fedpace.engines.exchange import (
    decode_update,
    download_bytes,
    encode_task,
    upload_bytes,
)
from fedpace.engines.simulated import SimulatedEngine
from fedpace.federation.engine import Delivery, RoundOutcome
from fedpace.federation.underway import Underway
from fedpace.wireless.channel import faded, fading_gains
from fedpace.wireless.latency import start_seconds
from fedpace.wireless.service import Sending, serve, serve_changing


class OverlappingSimulation(SimulatedEngine):
    """An `OverlappingEngine` on the virtual clock, and an `Engine` still.

    Real training, really encoded messages, computed seconds. A client begins when the server has
    passed its overhead, downloads and trains, and is served by the band in the order of readiness.
    Where links fade, an upload keeps the gain of the round it began in, as in rounds that wait.
    """

    def stepped(self) -> float:
        """Return the present second: what a server does takes no time here."""
        return self._clock.now

    def start(self, tasks: Sequence[ClientTask]) -> list[Underway]:
        """Ask clients for their tasks, now; who does not answer at once does not begin."""
        clients, system = self._network.clients, self._network.system
        begun = []
        for task in tasks:
            answers = rng_for(self._seed, "availability", task.round_index).random(len(clients))
            if answers[task.client] >= clients.availability[task.client]:
                continue
            down = download_bytes(self._exchange, task.sketch_rank)
            every_rank, every_received = np.ones((2, len(clients)))
            every_rank[task.client], every_received[task.client] = task.sketch_rank, 8.0 * down
            seconds = start_seconds(clients, system, every_rank, every_received)[task.client]
            length = upload_bytes(self._exchange, task.sketch_rank)
            ready = self._clock.now + system.overhead_seconds + float(seconds)
            begun.append(
                Underway(
                    client=task.client,
                    started_round=task.round_index,
                    sketch_rank=task.sketch_rank,
                    inverse_probability=1.0,
                    started_seconds=self._clock.now,
                    download_bytes=down,
                    upload_bytes=length,
                    sending=Sending(task.client, ready, 8.0 * length),
                )
            )
        return begun

    def advance(
        self,
        round_index: int,
        underway: Sequence[Underway],
        *,
        until: float = np.inf,
        arrivals: int | None = None,
    ) -> tuple[list[Underway], list[Underway]]:
        """Move the clock to `until`, or to the last of so many arrivals.

        Returns:
            Who has arrived, in that order, and who has not.

        Raises:
            InputError: nothing would ever end the wait.
        """
        if until == np.inf and len(underway) < (arrivals or 1):
            raise InputError("nobody is underway, so nothing can arrive; start someone first")
        network, waiting = self._network, [u.sending for u in underway]
        clients, band = network.clients, network.system.bandwidth_hz
        if network.gains is not None:
            sendings, then = serve_changing(
                waiting, clients, network.gains, band, now=self._clock.now, until=until,
                arrivals=arrivals, best_first=network.best_first,
            )  # fmt: skip
        else:
            if network.fading:
                clients = faded(clients, self._gains(underway))
            sendings, then = serve(
                waiting, clients, band, now=self._clock.now, until=until, arrivals=arrivals,
                shortest_first=network.fading,
            )  # fmt: skip
        self._clock.now = then
        moved = [replace(u, sending=s) for u, s in zip(underway, sendings, strict=True)]
        arrived = [u for u in moved if u.sending.arrived_seconds is not None]
        arrived.sort(key=lambda u: (u.sending.arrived_seconds, u.client))
        return arrived, [u for u in moved if u.sending.arrived_seconds is None]

    def _gains(self, underway: Sequence[Underway]) -> Floats:
        count = len(self._network.clients)
        gains = np.ones(count)
        for started in {u.started_round for u in underway}:
            mine = [u.client for u in underway if u.started_round == started]
            gains[mine] = fading_gains(self._seed, started, count)[mine]
        return gains

    def train(self, tasks: Sequence[ClientTask], underway: Sequence[Underway]) -> list[Underway]:
        """Train what was begun, all together, and return everything underway with its message.

        The outcome of a task is decided when it begins; that it is computed later lets tasks that
        began at different times share a pass.
        """
        begun = {(u.client, u.started_round) for u in underway if not u.message}
        wanted = [t for t in tasks if (t.client, t.round_index) in begun]
        down = [encode_task(self._exchange, t) for t in wanted]
        answers = self._answers(wanted, down) if wanted else []
        came = {t.client: answer for t, answer in zip(wanted, answers, strict=True)}

        def trained(u: Underway) -> Underway:
            message, train_loss = came[u.client]
            return replace(u, message=message, train_loss=train_loss)

        return [u if u.message else trained(u) for u in underway]

    def read(self, ended: Sequence[Underway]) -> RoundOutcome:
        """Decode what has arrived, which is all that has ended."""
        updates, deliveries = [], []
        for u in ended:
            task = u.task(self._seed)
            updates.append(decode_update(self._exchange, u.message, task, u.train_loss))
            deliveries.append(delivery(u, self._network.system.overhead_seconds))
        return RoundOutcome(updates, deliveries, 0.0)


def delivery(underway: Underway, overhead_seconds: float) -> Delivery:
    """Return how the round of a client that has arrived went; from its start, s.

    Args:
        underway: the client.
        overhead_seconds: what of the time to its start was the server's, as in rounds that wait.
    """
    sending = underway.sending
    assert sending.began_seconds is not None
    assert sending.arrived_seconds is not None
    seconds = sending.arrived_seconds - sending.ready_seconds
    return Delivery(
        download_bytes=underway.download_bytes,
        upload_bytes=underway.upload_bytes,
        start_seconds=sending.ready_seconds - underway.started_seconds - overhead_seconds,
        upload_seconds=seconds,
        bandwidth_hz=0.0,
    )
