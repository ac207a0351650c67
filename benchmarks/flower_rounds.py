"""Rounds over Flower on loopback: seconds against the in-process engine, bytes at the socket.

    python benchmarks/flower_rounds.py --clients 8 --rounds 6 --rank 16 --sketch-rank 4

A server and as many `fedpace join` processes, all on this machine, with MiniLM; between them a
relay that counts what passes. Every client takes part in every round. The first round is left out
(it waits for caches and connections). Bytes are those of the TCP payload in each direction, polls
and heartbeats included, from the end of a round to the end of the next. Takes about three minutes.
"""

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from rich.console import Console

EXPERIMENT = """
methods = ["full"]
[data]
clients = {clients}
max_eval = 8
[lora]
rank = {rank}
sketch = "{sketch}"
[training]
rounds = {rounds}
eval_every = {rounds}
local_steps = {steps}
[network]
clients = "{profiles}"
"""


class Relay:
    """Passes bytes between clients and server, and counts them."""

    def __init__(self, upstream: int) -> None:
        self.up = self.down = self.polls = 0
        self.port = 0
        self._upstream, self._ready = upstream, threading.Event()
        threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True).start()
        self._ready.wait()

    async def _serve(self) -> None:
        async def pump(source, sink, name):
            try:
                while data := await source.read(65536):
                    setattr(self, name, getattr(self, name) + len(data))
                    if data.startswith(b"POST /v1/fleet/pull-messages"):
                        self.polls += len(data)
                    sink.write(data)
                    await sink.drain()
            except ConnectionError:
                pass
            finally:
                sink.close()

        async def accept(reader, writer):
            try:
                inner, outer = await asyncio.open_connection("127.0.0.1", self._upstream)
            except ConnectionError:
                writer.close()
                return
            await asyncio.gather(pump(reader, outer, "up"), pump(inner, writer, "down"))

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await server.serve_forever()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--sketch-rank", type=int, default=16)
    parser.add_argument("--sketch", default="residual")
    options = parser.parse_args()

    import fedpace as fp
    from fedpace.config import load_experiment
    from fedpace.deploy.server import Waiting, conduct, own_server
    from fedpace.deploy.view import ServerView

    folder = Path(tempfile.mkdtemp(prefix="fedpace-bench-"))
    profiles = folder / "profiles.csv"
    rows = [f"{n},1,0.1,1.0,{options.sketch_rank}" for n in range(options.clients)]
    head = "client_id,data_weight,step_seconds,spectral_efficiency,max_rank"
    profiles.write_text("\n".join([head, *rows]) + "\n")
    path = folder / "my.toml"
    path.write_text(
        EXPERIMENT.format(
            clients=options.clients,
            rank=options.rank,
            sketch=options.sketch,
            profiles=profiles,
            rounds=options.rounds,
            steps=options.steps,
        )
    )
    experiment, port = load_experiment(path), free_port()
    view = ServerView(Console(stderr=True))
    with own_server("127.0.0.1", port, folder / "superlink.log") as grid:
        relay = Relay(port)
        clients = [
            subprocess.Popen(
                [sys.executable, "-m", "fedpace", "join", f"127.0.0.1:{relay.port}", "--partition",
                 f"{n}/{options.clients}", "--log", folder / f"node-{n}.log"],
                env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL,
            )
            for n in range(options.clients)
        ]  # fmt: skip
        record, after = view.show_record, []

        def show_record(done, rounds):
            record(done, rounds)
            after.append((relay.up, relay.down, relay.polls))

        view.show_record = show_record
        waiting = Waiting(options.clients, 600, 600)
        flower = conduct(grid, experiment, waiting, view, out=folder / "run")
    for client in clients:
        client.wait(30)
    ends: list[float] = []
    local = fp.run(
        experiment, out=folder / "local", show=lambda r, n: ends.append(time.monotonic())
    )
    ours, theirs = flower.records[1:], np.diff(ends)
    wire = np.diff(np.array(after), axis=0)
    charged = np.array(
        [[r.upload_bits / 8, r.download_bits / 8] for r in flower.records]
    )[1:]  # fmt: skip
    print(
        json.dumps(
            {
                "clients": options.clients,
                "k": options.sketch_rank,
                "r": options.rank,
                "seconds_per_round": round(float(np.mean([r.round_seconds for r in ours])), 2),
                "in_process_seconds": round(float(np.mean(theirs[:-1])), 2),
                "charged_up": float(charged[:, 0].mean()),
                "wire_up_over_charged": round(float(wire[:, 0].sum() / charged[:, 0].sum()), 4),
                "without_polls": round(
                    float((wire[:, 0] - wire[:, 2]).sum() / charged[:, 0].sum()), 4
                ),
                "charged_down": float(charged[:, 1].mean()),
                "wire_down_over_charged": round(float(wire[:, 1].sum() / charged[:, 1].sum()), 4),
                "same_participants": [len(r.participants) for r in ours]
                == [len(r.participants) for r in local.records[1:]],
            }
        )
    )


if __name__ == "__main__":
    main()
