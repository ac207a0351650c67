"""What a client has and does: its data, its model, its answer to an offer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Context
from numpy.typing import NDArray

from fedpace.core.adapter import Role
from fedpace.core.errors import FedPaceError, InputError, RunError, public_part
from fedpace.core.examples import Examples
from fedpace.core.messages import ClientTask, ClientUpdate
from fedpace.core.sketch import Sketch
from fedpace.data.load import load_training
from fedpace.deploy.client_view import ClientStatus, Show
from fedpace.deploy.handshake import model_objection, version_objection
from fedpace.engines.exchange import Exchange
from fedpace.engines.flower.client import ClientWork
from fedpace.experiment.build import build_model, examples_of, make_exchange, tokenised, trainers
from fedpace.experiment.config import Experiment
from fedpace.experiment.dealing import dealt
from fedpace.experiment.parsing import parse
from fedpace.experiment.toml_files import TEMPLATE_NAMES, toml_table
from fedpace.federation.engine import Train
from fedpace.lora import AdaptedModel
from fedpace.lora.cuts import cuts_of
from fedpace.lora.fingerprint import base_fingerprint
from fedpace.lora.trial import try_out

Say = Callable[[str], None]
MOST_FAILURES = 3
"""A client whose training fails so often in a row waits no more."""


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


@dataclass(slots=True)
class Client:
    """The state of a client: the model and data of the experiment it was last offered."""

    own: Own
    say: Say
    show: Show = lambda status: None
    refusal: str | None = None
    """Why it cannot take part."""
    over: bool = False
    """The server said that the run is over."""
    _offer: tuple[str, str] | None = None
    _facts: dict[str, Any] = field(default_factory=dict)
    _work: ClientWork | None = None
    _failures: int = 0
    """Rounds in which training failed, since it last did not."""
    _status: ClientStatus = field(default_factory=ClientStatus)

    def introduce(self, offer: Mapping[str, Any], context: Context) -> Mapping[str, Any]:
        """Answer a server's offer; loads model and data, once for an experiment."""
        if offer.get("over"):
            self.over = True
            return {"name": self.own.name, "refusal": "over"}
        if "refused" in offer:
            reason = str(offer["refused"])
            if offer.get("may_pass"):
                self.say(f"{reason}; waiting for the other to go")
            else:
                self.refusal = reason
            return {"name": self.own.name, "refusal": reason}
        try:
            if (objection := version_objection(offer)) is not None:
                raise InputError(objection, public=objection)
            if self.own.name not in offer.get("population", [self.own.name]):
                late = (
                    f"the run began without {self.own.name!r} and takes no more clients; join "
                    "before it begins, or under the name of a client that it has (--name)"
                )
                raise InputError(late, public=late)
            key = (str(offer["experiment"]), str(offer["base"]))
            if key != self._offer:
                self._load(offer)
                self._offer = key
            else:
                self.say(f"connected again, with {self._facts['examples']} examples")
        except (FedPaceError, KeyError) as error:
            self.refusal = str(error)
            return {"name": self.own.name, "refusal": public_part(error)}
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

    def assigned(self, rate_bps: float, accepted: int, refused: str) -> None:
        """Take notice of what came with a task."""
        if refused:
            self.say(f"the server refused this client's last update: {refused}")
        self._status = replace(self._status, rate_bps=rate_bps, accepted=accepted)

    def sending(self, rate_bps: float, upload_bytes: int) -> None:
        """Take notice that an answer leaves."""
        self._now(state="sending", upload_bytes=upload_bytes)

    def _now(self, **changes: Any) -> None:
        self._status = replace(self._status, **changes)
        self.show(self._status)

    def _trained(self, train: Train, tasks: Sequence[ClientTask]) -> Sequence[ClientUpdate]:
        """Train; after failures in some rounds one after another this client gives up."""
        try:
            updates = train(tasks)
        except Exception as error:
            self._failures += 1
            index = tasks[0].round_index + 1
            self.say(f"round {index}: training failed: {type(error).__name__}: {error}")
            if self._failures >= MOST_FAILURES:
                self.refusal = (
                    f"training failed in {self._failures} rounds one after another, the last time "
                    f"with {type(error).__name__}: {error}"
                )
            raise
        self._failures = 0
        return updates

    def _load(self, offer: Mapping[str, Any]) -> None:
        self.say("loading model and data")
        labels = offer["labels"]
        text, names = str(offer["experiment"]), None if labels is None else tuple(labels)
        experiment = _experiment(text, self.own.model)
        if experiment.model.trust_remote_code and self.own.model is None:
            asked = (
                "the server's experiment runs Python files that its model brings "
                "([model] trust_remote_code); a client does that only for a model that it names "
                "itself: read those files, then join with --model FOLDER"
            )
            raise InputError(asked, public=asked)
        examples = own_examples(self.own, experiment, labels)
        adapted, base = _model(text, self.own.model, names)
        if (objection := model_objection(offer, adapted, base)) is not None:
            # Without the model's name, which may be a path of this machine.
            public = objection.partition(";")[0].replace(f" {adapted.base.name!r}", "")
            raise InputError(objection, public=public)
        tokens = tokenised(experiment, examples, adapted)
        try_out(adapted, tokens)
        self.say(cuts_of(tokens, experiment.model.max_length).told())
        made: dict[tuple[int, Sketch, tuple[Role, ...]], Train] = {}

        def make_train(sketch: Sketch, trained: tuple[Role, ...]) -> Train:
            def train(tasks: Sequence[ClientTask]) -> Sequence[ClientUpdate]:
                position = tasks[0].client
                key = (position, sketch, trained)
                if key not in made:
                    clients = {position: tokens}
                    factory = trainers(
                        experiment, adapted, clients, stacked=False,
                        stepped=lambda steps: self._now(step=steps),
                    )  # fmt: skip
                    made[key] = factory(sketch, trained)
                index, rank = tasks[0].round_index, tasks[0].sketch_rank
                self.say(f"round {index + 1}: training {rank} of {adapted.layout.rank} components")
                self._now(
                    state="training", round_index=index, sketch_rank=rank,
                    rank=adapted.layout.rank, step=0, steps=experiment.training.local_steps,
                )  # fmt: skip
                updates = self._trained(made[key], tasks)
                self.say(f"round {index + 1}: loss {updates[0].train_loss:.4f}")
                self._now(loss=updates[0].train_loss)
                return updates

            return train

        def exchange(method: str) -> Exchange:
            return make_exchange(experiment, method, adapted.layout, adapted.initial)

        self._work = ClientWork(cache(exchange), make_train)
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
    train, _ = examples_of(experiment)
    return train, dealt(experiment, train)


def load_shared(experiment: Experiment) -> None:
    """Load what clients of one process share, so that those it is forked into have it."""
    text = experiment.to_toml()
    train, _ = _dealt(text)
    _model(text, None, train.label_names)


def _experiment(text: str, model: str | None) -> Experiment:
    table = toml_table(text, "the server's experiment")
    if model is not None:
        table.setdefault("model", {})["name"] = model
    experiment = parse(Experiment, table, "the server's experiment")
    if experiment.data.chat_template not in TEMPLATE_NAMES:
        what = "the server's experiment names a file as [data] chat_template; only names travel"
        raise InputError(what, public=what)
    return experiment


def own_examples(own: Own, experiment: Experiment, labels: list[str] | None) -> Examples:
    """Load what a client trains on.

    Raises:
        InputError: there is nothing, or not what the experiment needs.
    """
    if own.partition is None:
        assert own.data is not None
        if not own.data.exists():
            raise InputError(
                f"--data {own.data}: no such file or folder; correct the path",
                public="its data are not there",
            )
        return load_training(str(own.data), labels)
    index, count = own.partition
    data = experiment.data
    if count != data.clients:
        raise InputError(
            f"--partition {index}/{count}: the server's experiment deals to {data.clients} "
            f"clients; write --partition {index}/{data.clients}",
            public=f"its --partition does not deal to {data.clients} clients",
        )
    train, shares = _dealt(experiment.to_toml())
    return train.take(shares[index])
