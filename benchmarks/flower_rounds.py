"""Rounds over Flower on loopback: seconds against the in-process engine, bytes at the socket.

    python benchmarks/flower_rounds.py --clients 8 --rounds 6 --rank 16 --sketch-rank 4

A server and as many `fedpace join` processes, all on this machine, with MiniLM; between them a
relay that counts what passes. Every client takes part in every round. The first round is left out
(it waits for caches and connections). Bytes are those of the TCP payload in each direction, from
the end of a round to the end of the next. `request_bytes` is what Flower's requests about a message
take beside the message's block, up and down: `fedpace.engines.flower.traffic` has it as constants.
With --local 0 the in-process engine is not run, with --tls 1 there are certificates, keys and the
proxy, and calls cannot be told apart. Takes about three minutes.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
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
upload_dtype = "float32"
[training]
rounds = {rounds}
eval_every = {rounds}
local_steps = {steps}
[network]
clients = "{profiles}"
"""


IDLE_ANSWER_BYTES = 300
"""The answer to a poll that brings nothing is shorter."""
EARLY_ANSWER_BYTES = 150
"""So is that to whoever asks for what is not there yet; the smallest part comes in 160."""


@dataclass
class Call:
    """One request and its answer, in bytes of TCP's payload."""

    name: str
    at: float
    """When it began, s."""
    sent: float = 0.0
    """When the last of it had gone up, s."""
    up: int = 0
    down: int = 0

    @property
    def idle(self) -> bool:
        """Whether it asked for work, and there was none."""
        return self.name == "pull-messages" and self.down < IDLE_ANSWER_BYTES

    @property
    def early(self) -> bool:
        """Whether it asked for a part of a message that was still on its way."""
        return self.name == "pull-object" and self.down < EARLY_ANSWER_BYTES


class Counter:
    """Flower's calls as a relay sees them pass.

    A connection carries one after another: what comes down on it answers what went up last.
    """

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._last: dict[int, Call] = {}

    def __call__(self, connection: int, way: str, data: bytes) -> None:
        name = None
        if way == "up" and data.startswith(b"POST "):
            name = data.split(b" ", 2)[1].decode().rsplit("/", 1)[-1]
        elif connection not in self._last:
            name = "TLS"  # all of a connection that cannot be read is one
        if name is not None:
            self._last[connection] = Call(name, time.monotonic())
            self.calls.append(self._last[connection])
        call = self._last[connection]
        setattr(call, way, getattr(call, way) + len(data))
        if way == "up":
            call.sent = time.monotonic()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


def bytes_of(calls: list[Call]) -> np.ndarray:
    return np.array([sum(c.up for c in calls), sum(c.down for c in calls)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--sketch-rank", type=int, default=16)
    parser.add_argument("--sketch", default="residual")
    parser.add_argument("--local", type=int, default=1)
    parser.add_argument("--tls", type=int, default=0)
    options = parser.parse_args()

    import fedpace as fp
    from fedpace.deploy.certificates import make_development_ca
    from fedpace.deploy.keys import add_key, make_key, read_public_key
    from fedpace.deploy.own_server import own_server
    from fedpace.deploy.secure_server import Protection
    from fedpace.deploy.server import conduct
    from fedpace.deploy.server_view import ServerView
    from fedpace.deploy.tcp_relay import open_relay
    from fedpace.deploy.waiting import Waiting
    from fedpace.engines.flower.traffic import Traffic
    from fedpace.experiment.config import load_experiment

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
    view, counter = ServerView(Console(stderr=True)), Counter()
    protection, admission = None, [[] for _ in range(options.clients)]
    if options.tls:
        protection = Protection(make_development_ca(folder / "certs", []), folder / "keys")
        for n, words in enumerate(admission):
            public = make_key(protection.keys, f"client-{n}")
            add_key(protection.keys, f"client-{n}", read_public_key(public))
            words += ["--ca", protection.certificates.ca, "--key", protection.keys / f"client-{n}"]
    with (
        own_server("127.0.0.1", port, folder / "superlink.log", protection) as grid,
        open_relay("127.0.0.1", port, watch=counter) as relay,
    ):
        clients = [
            subprocess.Popen(
                [sys.executable, "-m", "fedpace", "join", f"127.0.0.1:{relay.port}", "--partition",
                 f"{n}/{options.clients}", "--log", folder / f"node-{n}.log", *admission[n]],
                env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL,
            )
            for n in range(options.clients)
        ]  # fmt: skip
        record, after = view.show_record, []

        def show_record(done, rounds):
            record(done, rounds)
            after.append((time.monotonic(), len(counter.calls), bytes_of(counter.calls)))

        view.show_record = show_record
        waiting = Waiting(options.clients, 600, 600)
        flower = conduct(grid, experiment, waiting, view, out=folder / "run")
    for client in clients:
        client.wait(30)
    ours = flower.records[1:]
    (began, first, before), (ended, last, whole) = after[0], after[-1]
    calls = counter.calls[first:last]
    idle = [call for call in calls if call.idle]
    about = [c for c in calls if not (c.idle or c.early) and c.name != "send-node-heartbeat"]
    messages = sum(len(r.participants) for r in ours)
    sent = np.array(
        [sum(getattr(p, way) for r in ours for p in r.participants) for way in
         ("upload_bytes", "download_bytes")]
    )  # fmt: skip
    own = Traffic()
    blocks = sent - messages * np.array([own.message_up, own.message_down])
    charged = np.array([sum(getattr(r, f"{way}_bits") for r in ours) / 8 for way in
                        ("upload", "download")])  # fmt: skip
    found = {
        "clients": options.clients,
        "k": options.sketch_rank,
        "r": options.rank,
        "seconds_per_round": round(float(np.mean([r.round_seconds for r in ours])), 2),
        "overhead_seconds": round(float(np.mean([r.overhead_seconds for r in ours])), 2),
        "slowest_seconds": round(
            float(
                np.mean(
                    [max(p.start_seconds + p.upload_seconds for p in r.participants) for r in ours]
                )
            ),
            2,
        ),
        "block_bytes": (blocks / messages).round().tolist(),
        "wire_over_charged": ((whole - before) / charged).round(4).tolist(),
    }
    if not options.tls:
        found |= {
            "request_bytes": ((bytes_of(about) - blocks) / messages).round().tolist(),
            "asked_too_early": sum(call.early for call in calls),
            "idle_poll_bytes": (bytes_of(idle) / len(idle)).round().tolist(),
            "idle_polls_a_second": round(len(idle) / (ended - began) / options.clients, 2),
        }
    if options.local:
        ends: list[float] = []
        local = fp.run(
            experiment, out=folder / "local", show=lambda r, n: ends.append(time.monotonic())
        )
        found["in_process_seconds"] = round(float(np.mean(np.diff(ends)[:-1])), 2)
        found["same_participants"] = [len(r.participants) for r in ours] == [
            len(r.participants) for r in local.records[1:]
        ]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
