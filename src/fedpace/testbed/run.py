"""`fedpace testbed EXPERIMENT`: network, processes and shaper together, until the run is over."""

import shlex
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from fedpace.core.errors import InputError, RunError
from fedpace.core.record import RoundRecord
from fedpace.experiment.config import Experiment
from fedpace.experiment.network import DRAWN, build_network
from fedpace.run_folder.measured import add_times
from fedpace.run_folder.reader import read_records
from fedpace.run_folder.schema import LINKS
from fedpace.testbed import links
from fedpace.testbed.network import Shaped, limit_links, shaped_network
from fedpace.testbed.prediction import overlaps, round_times
from fedpace.testbed.processes import Part, end, preload, serve, start, start_clients
from fedpace.testbed.shaper import Shaper
from fedpace.testbed.traces import Trace, follow, write_traces
from fedpace.wireless.network import Network

_LOOK_SECONDS = 0.04
"""Between looks at the classes' counters while an upload is on its way."""
_IDLE_SECONDS = 0.25


def run_on_testbed(
    experiment: Experiment, folder: Path, traces: Mapping[int, Trace], *, resumed: bool = False
) -> None:
    """Run an experiment on a network made for it; all but the run folder is removed again.

    Args:
        experiment: [network] gives devices, links, band and rule; [data] clients their number.
        folder: to make, or to go on with; each round adds to its testbed.jsonl.
        traces: of the links that change, by position.
        resumed: the folder is to go on with.

    Raises:
        InputError: something in the experiment is wrong.
        RunError: a part of the testbed ended.
    """
    with shaped_network(experiment.data.clients) as shaped, ExitStack() as stack:
        parts: list[Part] = []
        stack.callback(lambda: end(parts))
        preload()
        parts.append(
            start("server", links.server(shaped.run), shaped.folder, serve,
                  experiment.model_dump(), str(folder), resumed, str(shaped.folder))
        )  # fmt: skip
        parts += start_clients(shaped.run, experiment, shaped.folder)
        _Conductor(experiment, folder, shaped, traces).until_over(parts)


class _Conductor:
    """Answers the parts' lines, and keeps the kernel's classes at what follows from them."""

    def __init__(
        self, experiment: Experiment, folder: Path, shaped: Shaped, traces: Mapping[int, Trace]
    ) -> None:
        self._experiment, self._folder = experiment, folder
        self._shaped, self._traces = shaped, traces
        self._shaper: Shaper | None = None
        self._began = 0.0
        self._traced: dict[int, float] = {}

    def until_over(self, parts: Sequence[Part]) -> None:
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
                follow(self._shaped.run, self._traces, time.monotonic() - self._began, self._traced)

    def _over(self, server: Part) -> None:
        if server.process.exitcode:
            raise RunError(f"the testbed's server ended early (status {server.process.exitcode}); "
                           "what it said stands above, and fedpace testbed --resume "
                           f"{shlex.quote(str(self._folder))} goes on")  # fmt: skip

    def _answer(self, client: int, verb: str, *rest: Any) -> Any:
        """Do what a part tells; positions of the clients are those of their names, and ours."""
        if self._shaper is None:
            network = network_in(self._experiment, self._folder)
            self._shaper = Shaper(self._shaped.classes, network, self._experiment.seed)
            limit_links(self._shaped.run, network)
            if self._traces:
                write_traces(self._folder / LINKS, self._traces)
            before = read_records(self._folder)  # of a run that goes on: its links do, too
            self._began = time.monotonic() - (before[-1].clock_seconds if before else 0.0)
        shaper = self._shaper
        if verb == "assign":
            return shaper.assign(*rest)
        if verb == "arrive":
            return shaper.arrive(*rest)
        if verb == "record":
            return self._keep(*rest)
        if verb == "send":
            return shaper.send(client, *rest)
        assert verb == "fetched"
        shaper.fetched(client)
        clients, system = shaper.network.clients, shaper.network.system
        step = clients.step_seconds[client] + rest[0] * clients.step_seconds_per_rank[client]
        return float(clients.download_seconds[client] + system.local_steps * step)

    def _keep(self, record: RoundRecord) -> None:
        """Hold a round that has ended against what was predicted."""
        shaper = self._shaper
        assert shaper is not None
        waited = record.underway is None
        if waited and record.participants and not overlaps(record):
            seed = self._experiment.seed
            times = round_times(shaper.network, seed, record, shaper.passages)
            add_times(self._folder, times)


def network_in(experiment: Experiment, folder: Path) -> Network:
    """Return the network of a run that has begun, with the devices and links in its folder."""
    told = {**dict.fromkeys(DRAWN), "clients": str(folder / "clients.csv")}
    section = experiment.network.model_copy(update=told)
    found = experiment.model_copy(update={"network": section})
    return build_network(found, None, fixed_bits=0.0, bits_per_rank=1.0)
