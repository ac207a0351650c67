"""FedPace as a plain Flower project: name these two objects in its pyproject.toml.

::

    [tool.flwr.app.components]
    serverapp = "fedpace.deploy.apps:server_app"
    clientapp = "fedpace.deploy.apps:client_app"
    [tool.flwr.app.config]
    experiment = "/path/to/experiment.toml"    # at the server
    out = "/path/to/run"                       # folder to make there; "" for runs/1, runs/2, ...
    clients = 10                               # begin when so many are there
    wait = 600.0                               # or after so many seconds
    closed = false                             # let no client enter later
    clock = "measured"                         # or "virtual": Flower simulates the nodes
    resume = ""                                # folder of a run that was cut off, to go on with

A node says by its ``--node-config`` what it trains on: ``data="/path/to/examples"``, or
``partition-id=0 num-partitions=10`` for a share of the experiment's own data, as Flower's
simulation sets it. Flower starts a process for every message here, and each loads the model anew;
`fedpace join` keeps it. In Flower's simulation the processes stay, and so does the model.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast, get_args

from flwr.app import ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp

from fedpace.core.errors import FedPaceError, InputError
from fedpace.deploy.client_work import Client, Own
from fedpace.engines.flower.client import ClientWork, make_client_app
from fedpace.engines.flower.traffic import Traffic
from fedpace.experiment.config import load_experiment
from fedpace.experiment.site import Clock
from fedpace.terminal import open_console, show_outcome

server_app = ServerApp()
_clients: dict[int, Client] = {}


@server_app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the experiment that the run's configuration names; show its table and report."""
    try:
        _serve(grid, context)
    except FedPaceError:
        # Flower logs what an app raises, in a process of its own: the one line says it all.
        sys.tracebacklimit = 0
        raise


def _serve(grid: Grid, context: Context) -> None:
    from fedpace.deploy.server import conduct
    from fedpace.deploy.server_view import ServerView
    from fedpace.deploy.waiting import Waiting

    console, config = open_console(stderr=True), context.run_config
    experiment = load_experiment(Path(str(config["experiment"])))
    count = int(config.get("clients", experiment.data.clients))
    wait, patience = (float(config.get(name, 600.0)) for name in ("wait", "patience"))
    waiting = Waiting(count, wait, patience, bool(config.get("closed", False)))
    out, resumed = (str(config.get(name, "")) for name in ("out", "resume"))
    clock = str(config.get("clock", "measured"))
    if clock not in get_args(Clock):
        raise InputError(f"clock = {clock!r}: choose one of {', '.join(get_args(Clock))}")
    with ServerView(console) as view:
        # Such nodes have Flower's own pauses.
        record = conduct(
            grid, experiment, waiting, view, out=Path(out) if out else None,
            resumed=Path(resumed) if resumed else None, traffic=Traffic(),
            clock=cast(Clock, clock),
        )  # fmt: skip
    show_outcome(record, console)


def introduce(offer: Mapping[str, Any], context: Context) -> Mapping[str, Any]:
    """Answer the offer and keep it: the next message may meet another process."""
    if "experiment" in offer:
        context.state["offer"] = ConfigRecord({"json": json.dumps(dict(offer))})
    return _client(context).introduce(offer, context)


def work(context: Context) -> ClientWork:
    """Return model and data, loaded from the offer that was kept where they are not there."""
    client = _client(context)
    if not client.loaded:
        client.introduce(json.loads(str(context.state.config_records["offer"]["json"])), context)
    return client.work(context)


def _client(context: Context) -> Client:
    if context.node_id not in _clients:
        config = context.node_config
        if "data" in config:
            own = Own(str(config.get("name", f"node-{context.node_id}")), Path(str(config["data"])))
        elif "partition-id" in config:
            index, count = int(config["partition-id"]), int(config["num-partitions"])
            own = Own(f"client-{index:0{len(str(count))}d}", None, (index, count))
        else:
            raise InputError(
                "a node without data: start it with --node-config 'data=\"/path/to/examples\"'"
            )
        _clients[context.node_id] = Client(own, lambda text: None)
    return _clients[context.node_id]


client_app = make_client_app(introduce, work)
