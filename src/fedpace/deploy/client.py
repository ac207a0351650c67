"""`fedpace join`: one client, with its data, for as long as the server wants it."""

import socket
import tempfile
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from flwr.app import Context
from flwr.clientapp import ClientApp
from numpy.typing import NDArray

from fedpace.build import build_model, examples_of, trainers
from fedpace.config import Experiment, parse
from fedpace.core.adapter import Role
from fedpace.core.errors import FedPaceError, InputError, RunError
from fedpace.core.examples import Examples
from fedpace.core.messages import ClientTask, ClientUpdate
from fedpace.core.profile import Sketch
from fedpace.data.load import load_training
from fedpace.deploy.flower_process import start, stop
from fedpace.deploy.offer import model_objection, version_objection
from fedpace.deploy.refusals import refusal_in
from fedpace.deploy.runtime import Endpoint, serve_tasks
from fedpace.engines.flower_client import ClientWork, make_client_app
from fedpace.federation.engine import Train
from fedpace.federation.partition import partition
from fedpace.lora import AdaptedModel, tokenise
from fedpace.lora.fingerprint import base_fingerprint

Say = Callable[[str], None]
KEPT_OUT_SECONDS = 75.0
"""How long a client tries that Flower may still hold for connected: two heartbeats and more."""


@dataclass(frozen=True, slots=True)
class Own:
    """What a client brings."""

    name: str
    data: Path | None
    """File or folder of examples."""
    partition: tuple[int, int] | None = None
    """Or share i of n of the experiment's own data, as the virtual clock deals them."""
    model: str | None = None
    """Where the base model is on this machine; by default where the experiment says."""


@dataclass(frozen=True, slots=True)
class Admission:
    """What a server with certificates and keys asks for."""

    ca: Path
    """The server's authority."""
    key: Path
    """This client's private key."""


@dataclass(slots=True)
class Client:
    """The state of a client: the model and data of the experiment it was last offered."""

    own: Own
    say: Say
    refusal: str | None = None
    """Why it cannot take part."""
    over: bool = False
    """The server said that the run is over."""
    _offer: tuple[str, str] | None = None
    _facts: dict[str, Any] = field(default_factory=dict)
    _work: ClientWork | None = None

    def introduce(self, offer: Mapping[str, Any], context: Context) -> Mapping[str, Any]:
        """Answer a server's offer; loads model and data, once for an experiment."""
        if offer.get("over"):
            self.over = True
            return {"name": self.own.name, "refusal": "over"}
        try:
            if (objection := version_objection(offer)) is not None:
                raise InputError(objection)
            if self.own.name not in offer.get("population", [self.own.name]):
                raise InputError(
                    f"the run began without {self.own.name!r}; join before it begins, or under the "
                    "name of a client that it has (--name)"
                )
            key = (str(offer["experiment"]), str(offer["base"]))
            if key != self._offer:
                self._load(offer)
                self._offer = key
        except (FedPaceError, KeyError) as error:
            self.refusal = str(error)
            return {"name": self.own.name, "refusal": self.refusal}
        return self._facts

    @property
    def loaded(self) -> bool:
        """Whether it has model and data."""
        return self._work is not None

    def work(self, context: Context) -> ClientWork:
        """Return what it trains with.

        Raises:
            RunError: it was not offered a run yet.
        """
        if self._work is None:
            raise RunError("a task came before the offer of a run")
        return self._work

    def _load(self, offer: Mapping[str, Any]) -> None:
        self.say("loading model and data")
        labels = offer["labels"]
        text, names = str(offer["experiment"]), None if labels is None else tuple(labels)
        experiment = _experiment(text, self.own.model)
        examples = own_examples(self.own, experiment, labels)
        adapted, base = _model(text, self.own.model, names)
        if (objection := model_objection(offer, adapted, base)) is not None:
            raise InputError(objection)
        tokens = tokenise(examples, adapted.base, max_length=experiment.model.max_length)
        made: dict[tuple[int, Sketch, tuple[Role, ...]], Train] = {}

        def make_train(sketch: Sketch, trained: tuple[Role, ...]) -> Train:
            def train(tasks: Sequence[ClientTask]) -> Sequence[ClientUpdate]:
                position = tasks[0].client
                key = (position, sketch, trained)
                if key not in made:
                    clients = {position: tokens}
                    factory = trainers(experiment, adapted, clients, stacked=False)
                    made[key] = factory(sketch, trained)
                self.say(f"round {tasks[0].round_index + 1}: training {tasks[0].sketch_rank} of "
                         f"{adapted.layout.rank} components")  # fmt: skip
                updates = made[key](tasks)
                self.say(f"round {tasks[0].round_index + 1}: loss {updates[0].train_loss:.4f}")
                return updates

            return train

        self._work = ClientWork(adapted.layout, make_train)
        self._facts = {"name": self.own.name, "examples": len(examples)}
        self.say(f"ready with {len(examples)} examples")


@lru_cache(maxsize=1)  # clients that share a process share the model
def _model(text: str, name: str | None, labels: tuple[str, ...] | None) -> tuple[AdaptedModel, str]:
    """Return the model of an experiment, and the hash of its weights."""
    adapted = build_model(_experiment(text, name), labels)
    return adapted, base_fingerprint(adapted)


@lru_cache(maxsize=1)
def _dealt(text: str) -> tuple[Examples, list[NDArray[np.int64]]]:
    """Return the experiment's own training data, and whose is what."""
    experiment = _experiment(text, None)
    data = experiment.data
    train, _ = examples_of(experiment)
    return train, partition(
        train, clients=data.clients, how=data.partition, alpha=data.alpha,
        size_sigma=data.size_sigma, seed=experiment.seed,
    )  # fmt: skip


def _experiment(text: str, model: str | None) -> Experiment:
    table = tomllib.loads(text)
    if model is not None:
        table.setdefault("model", {})["name"] = model
    return parse(Experiment, table, "the server's experiment")


def own_examples(own: Own, experiment: Experiment, labels: list[str] | None) -> Examples:
    """Load what a client trains on.

    Raises:
        InputError: there is nothing, or not what the experiment needs.
    """
    if own.partition is None:
        assert own.data is not None
        if not own.data.exists():
            raise InputError(f"--data {own.data}: no such file or folder; correct the path")
        return load_training(str(own.data), labels)
    index, count = own.partition
    data = experiment.data
    if count != data.clients:
        raise InputError(
            f"--partition {index}/{count}: the server's experiment deals to {data.clients} "
            f"clients; write --partition {index}/{data.clients}"
        )
    train, shares = _dealt(experiment.to_toml())
    return train.take(shares[index])


def join(
    server: str,
    own: Own,
    say: Say,
    *,
    log: Path | None = None,
    wait_seconds: float = 0.0,
    retry_seconds: float = 600.0,
    admission: Admission | None = None,
) -> None:
    """Take part until the server says that the run is over.

    A server that goes away is waited for, with the model loaded: it may resume.

    Args:
        server: "HOST:PORT".
        own: name and data.
        say: called with what the client is doing.
        log: file for what Flower says.
        wait_seconds: how long a server that is not there yet is waited for.
        retry_seconds: how long one that was there is.
        admission: authority and key, where the server asks for them.

    Raises:
        InputError: the server cannot be reached, or does not take this client; with the remedy.
        RunError: the server did not come back.
    """
    _wait_for(server, wait_seconds)
    client = Client(own, say)
    app = make_client_app(client.introduce, client.work)
    with tempfile.TemporaryDirectory(prefix="fedpace-") as name:
        folder = Path(name)
        log = log or folder / "node.log"
        kept_out_since = None
        while not client.over:
            before = log.stat().st_size if log.exists() else 0
            _connected(server, app, client, folder / "home", log, admission)
            refusal = refusal_in(_since(log, before))
            kept_out_since = (kept_out_since or time.monotonic()) if refusal else None
            if refusal is not None and kept_out_since is not None:
                passing = refusal.may_pass and time.monotonic() - kept_out_since < KEPT_OUT_SECONDS
                if not passing:
                    raise InputError(f"server {server} does not take this client: {refusal.remedy}")
                say("the server does not take this client yet; trying again")
                time.sleep(5.0)
            elif not client.over:
                say(f"the server went away ({_why(log)}); waiting for it to come back")
                time.sleep(1.0)
                _wait_for(server, retry_seconds)
    say("the run is over")


def _connected(
    server: str,
    app: ClientApp,
    client: Client,
    home: Path,
    log: Path,
    admission: Admission | None,
) -> None:
    """Work over one connection, until it ends."""
    with ExitStack() as stack:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        options = ["--superlink", server, "--isolation", "process",
                   "--host", "127.0.0.1", "--port", port, "--max-wait-time", 10]  # fmt: skip
        if admission is None:
            options += ["--insecure"]
        else:
            options += ["--root-certificates", admission.ca,
                        "--auth-supernode-private-key", admission.key]  # fmt: skip
        node = start("supernode", options, home, log)
        stack.callback(stop, node)
        client.say(f"connecting to {server}")
        while node.poll() is None and not _open(port):
            time.sleep(0.05)
        with suppress(httpx.HTTPError):  # its node ended: so does this connection
            for done in serve_tasks(Endpoint(f"127.0.0.1:{port}"), app):
                if done and (client.over or client.refusal is not None):
                    time.sleep(2.0)  # the node hands the last answer on to the server
                    break
                if node.poll() is not None:
                    break
        if client.refusal is not None:
            raise InputError(client.refusal)


def _wait_for(server: str, seconds: float) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            return _reach(server)
        except InputError:
            if time.monotonic() >= end:
                raise
            time.sleep(0.5)


def _reach(server: str) -> None:
    host, _, port = server.rpartition(":")
    if not host or not port.isdigit():
        raise InputError(f"server {server!r} is not HOST:PORT, e.g. 192.168.1.10:8080")
    try:
        socket.create_connection((host.strip("[]"), int(port)), 5.0).close()
    except OSError as error:
        raise InputError(
            f"server {server} cannot be reached ({error.strerror or error}); is fedpace serve "
            "running there, and the port open to this machine?"
        ) from None


def _open(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1.0).close()
    except OSError:
        return False
    return True


def _since(log: Path, position: int) -> str:
    with log.open("rb") as file:
        file.seek(position)
        return file.read().decode("utf-8", "replace")


def _why(log: Path) -> str:
    lines = log.read_text("utf-8", "replace").splitlines() if log.exists() else []
    told = (line for line in reversed(lines) if "ERROR" in line or "Exit Code" in line)
    return next(told, "it did not say why").strip()[-200:]
