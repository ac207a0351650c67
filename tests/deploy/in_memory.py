"""`fedpace serve` with its clients in one process, over a grid in memory."""

from dataclasses import replace
from io import StringIO

from rich.console import Console

from engines.fake_grid import FakeGrid
from fedpace.deploy.client_work import Client, Own
from fedpace.deploy.server import conduct
from fedpace.deploy.server_view import ServerView
from fedpace.deploy.waiting import Waiting
from fedpace.engines.flower.client import make_client_app
from fedpace.experiment.config import load_experiment
from tiny import EXPERIMENT, write_experiment


def run_in_memory(
    folder, *overrides, clients=2, rounds=2, console=None, spoil=None, clock="measured",
    resumed=False,
):  # fmt: skip
    """Run `full` participation to the end; `spoil`: number of a client -> what it does to its
    updates before it sends them. `resumed`: go on with what an earlier call left.

    Returns:
        What each client said, by name; what it showed, by name; the record of the run.
    """
    text = EXPERIMENT.replace("clients = 6", f"clients = {clients}")
    text = text.replace("rounds = 6", f"rounds = {rounds}").replace("replan_every = 3", "")
    text = text.replace('"adaptive", "uniform"', '"full"').replace('"dirichlet"', '"iid"')
    text = text.replace("alpha = 1.0", "size_sigma = 0.0")
    experiment = load_experiment(write_experiment(folder, text), overrides)
    said, shown, apps = {}, {}, {}
    for n in range(clients):
        name = f"client-{n}"
        said[name], shown[name] = [], []
        own = Own(name, None, (n, clients))
        client = Client(own, said[name].append, shown[name].append)
        apps[n + 1] = make_client_app(
            client.introduce, spoiled(client.work, (spoil or {}).get(n)), pace=client.sending,
            assigned=client.assigned,
        )  # fmt: skip
    with ServerView(console or Console(file=StringIO())) as view:
        waiting = Waiting(clients, 60.0, 60.0)
        where = {"resumed" if resumed else "out": folder / "run"}
        record = conduct(FakeGrid(apps), experiment, waiting, view, clock=clock, **where)
    return said, shown, record


def spoiled(work, change):
    """A client's work, whose updates are changed where `change` is given."""
    if change is None:
        return work

    def instead(context):
        honest = work(context)

        def make_train(sketch, trained):
            train = honest.make_train(sketch, trained)
            return lambda tasks: [change(update) for update in train(tasks)]

        return replace(honest, make_train=make_train)

    return instead
