"""`fedpace testbed EXPERIMENT`: network, processes and shaper together, until the run is over."""

import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from fedpace.core.errors import InputError, RunError
from fedpace.experiment.config import Experiment
from fedpace.experiment.network import DRAWN, build_network
from fedpace.testbed import links
from fedpace.testbed.band import SIGNALLING_BPS, full_rates
from fedpace.testbed.classes import Classes, Rate
from fedpace.testbed.processes import Part, end, preload, serve, start, start_clients
from fedpace.testbed.shaper import Shaper
from fedpace.testbed.spaces import remove, run_name, scratch
from fedpace.testbed.traces import Trace
from fedpace.wireless.network import Network

_LOOK_SECONDS = 0.04
"""Between looks at the classes' counters while an upload is on its way."""
_IDLE_SECONDS = 0.25


def run_on_testbed(experiment: Experiment, out: Path, traces: Mapping[int, Trace]) -> Shaper:
    """Run an experiment on a network made for it; all but the run folder is removed again.

    Args:
        experiment: [network] gives devices, links, band and rule; [data] clients their number.
        out: folder to make.
        traces: of the links that change, by position.

    Returns:
        The shaper, with everything that passed.

    Raises:
        InputError: something in the experiment is wrong.
        RunError: a part of the testbed ended.
    """
    count = experiment.data.clients
    if count > links.MOST_CLIENTS:
        raise InputError(f"[data] clients = {count}: a testbed has at most {links.MOST_CLIENTS} "
                         "namespaces; use fewer")  # fmt: skip
    run = run_name()
    with _interruptible(), ExitStack() as stack:
        folder = str(stack.enter_context(scratch(run)))
        stack.callback(remove, run)
        links.build(run, count)
        leaves = {links.client(run, n).address: Rate(SIGNALLING_BPS, count * SIGNALLING_BPS)
                  for n in range(count)}  # fmt: skip
        classes = stack.enter_context(
            Classes(links.access_point(run), links.SERVER_PORT, count * SIGNALLING_BPS, leaves)
        )
        parts: list[Part] = []
        stack.callback(lambda: end(parts))
        table = experiment.model_dump()
        preload()
        parts.append(start("server", links.server(run), Path(folder), serve, table, str(out),
                           folder))  # fmt: skip
        parts += start_clients(run, experiment, Path(folder))
        return _Conductor(experiment, out, run, classes, traces).until_over(parts)


class _Conductor:
    """Answers the parts' lines, and keeps the kernel's classes at what follows from them."""

    def __init__(
        self, experiment: Experiment, out: Path, run: str, classes: Classes,
        traces: Mapping[int, Trace],
    ) -> None:  # fmt: skip
        self._experiment, self._out, self._run = experiment, out, run
        self._classes, self._traces = classes, traces
        self._shaper: Shaper | None = None
        self._began = 0.0
        self._traced: dict[int, float] = {}

    def until_over(self, parts: Sequence[Part]) -> Shaper:
        server, by_line = parts[0], {part.line: n for n, part in enumerate(parts)}
        while True:
            sending = self._shaper is not None and self._shaper.sending
            for line in wait(list(by_line), _LOOK_SECONDS if sending else _IDLE_SECONDS):
                assert isinstance(line, Connection)
                try:
                    words = line.recv()
                except (EOFError, ConnectionResetError):
                    part = parts[by_line.pop(line)]
                    part.process.join(5)
                    if part is server:
                        return self._over(server)
                    continue
                if words[0] == "failed":
                    name = parts[by_line[line]].name
                    told = words[2] if name == "server" else f"{name}: {words[2]}"
                    raise (InputError if words[1] else RunError)(told)
                line.send(self._answer(by_line[line] - 1, *words))
            if self._shaper is not None:
                self._shaper.look()
                self._follow_traces()

    def _over(self, server: Part) -> Shaper:
        if server.process.exitcode or self._shaper is None:
            raise RunError(f"the testbed's server ended early (status {server.process.exitcode}); "
                           "what it said stands above")  # fmt: skip
        return self._shaper

    def _answer(self, client: int, verb: str, *rest: Any) -> Any:
        """Do what a part tells; positions of the clients are those of their names, and ours."""
        if self._shaper is None:
            network = network_in(self._experiment, self._out)
            self._shaper = Shaper(self._classes, network, self._experiment.seed)
            self._limit_links(network)
            self._began = time.monotonic()
        shaper = self._shaper
        if verb == "assign":
            return shaper.assign(*rest)
        if verb == "arrive":
            return shaper.arrive(*rest)
        if verb == "send":
            return shaper.send(client, *rest)
        assert verb == "fetched"
        shaper.fetched(client)
        clients, system = shaper.network.clients, shaper.network.system
        step = clients.step_seconds[client] + rest[0] * clients.step_seconds_per_rank[client]
        return float(clients.download_seconds[client] + system.local_steps * step)

    def _limit_links(self, network: Network) -> None:
        own = full_rates(network.clients, network.system.bandwidth_hz)
        if network.fading:
            own = np.full_like(own, np.nan)  # a gain above 1 would meet the limit; the band has it
        down = network.system.downlink_bps
        for n, rate in enumerate(own.tolist()):
            if np.isfinite(rate):
                links.limit_link(links.client(self._run, n).space, "eth0", rate)
            if np.isfinite(down):
                links.limit_link(links.access_point(self._run), f"c{n}", down)

    def _follow_traces(self) -> None:
        for n, trace in self._traces.items():
            rate = trace.at(time.monotonic() - self._began)
            if rate is not None and rate != self._traced.get(n):
                links.limit_link(links.client(self._run, n).space, "eth0", rate)
                self._traced[n] = rate


def network_in(experiment: Experiment, folder: Path) -> Network:
    """Return the network of a run that has begun, with the devices and links in its folder."""
    told = {**dict.fromkeys(DRAWN), "clients": str(folder / "clients.csv")}
    section = experiment.network.model_copy(update=told)
    found = experiment.model_copy(update={"network": section})
    return build_network(found, None, fixed_bits=0.0, bits_per_rank=1.0)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Have a request to terminate clean up as an interrupt from the terminal does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
