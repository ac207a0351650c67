"""The clients that introduced themselves, as the population that a plan is made for.

A client says how many examples it has, and nothing else of itself: devices and links are first
taken from [network], then seen (docs/flower.md).
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from fedpace.core.adapter import AdapterLayout
from fedpace.core.errors import InputError
from fedpace.core.profile import Clients, Floats
from fedpace.engines.flower.roster import AWAY, Member, Roster
from fedpace.experiment.config import Experiment
from fedpace.experiment.message_sizes import first_network
from fedpace.experiment.methods import hooks_of, method_context
from fedpace.experiment.network import DRAWN
from fedpace.federation.checks import believed_examples
from fedpace.run_folder.schema import CLIENTS
from fedpace.wireless.clients_file import read_clients
from fedpace.wireless.network import Network
from fedpace.wireless.population import with_newcomers


def first_population(experiment: Experiment, layout: AdapterLayout, roster: Roster) -> Network:
    """Draw the network that [network] describes for those with whom the run begins."""
    network = first_network(experiment, layout, _examples(experiment, roster).tolist())
    columns = {**network.clients.columns(), "client_id": np.array(roster.names)}
    return replace(network, clients=Clients.from_columns(**columns))


def same_population(
    experiment: Experiment, layout: AdapterLayout, roster: Roster, folder: Path
) -> Network:
    """Return the network of a run that is resumed; who is not back keeps its place and weight.

    Raises:
        InputError: one of them has another share of the examples than it had.
    """
    # What was drawn, and who came later, is in the folder.
    told = {**dict.fromkeys(DRAWN), "clients": str(folder / CLIENTS)}
    section = experiment.network.model_copy(update=told)
    found = experiment.model_copy(update={"network": section})
    before = read_clients(folder / CLIENTS).data_weight
    _expect_the_others(roster, before)
    network = first_network(found, layout, _examples(experiment, roster).tolist())
    now = network.clients.data_weight
    if not np.allclose(before, now, rtol=1e-9, atol=0):
        n = int(np.argmax(np.abs(now - before)))
        raise InputError(
            f"{folder} was made with other data: client {roster.names[n]!r} had a share of "
            f"{before[n]:.4g} of all examples, now {now[n]:.4g}; start it with the data that it had"
        )
    return network


def grown_population(experiment: Experiment, network: Network, roster: Roster) -> Network:
    """Return the network with those whom the roster has admitted since.

    All data weights are those of the new population. Of a newcomer's device and link nothing is
    known: it is taken for a typical client, whatever [network] says.
    """
    new = roster.names[len(network.clients) :]
    examples = _examples(experiment, roster)
    return replace(network, clients=with_newcomers(network.clients, new, examples))


def known_names(folder: Path) -> list[str] | None:
    """Return the names of a run's clients, by position; None where it had not begun."""
    path = folder / CLIENTS
    if not path.exists():
        return None
    return [str(name) for name in read_clients(path).client_id]


def room_for(experiment: Experiment, layout: AdapterLayout) -> int | None:
    """Return how many clients a run can have at most; None where nothing limits them."""
    context = method_context(experiment, layout, np.empty(0))
    limits = [
        hook.most_clients
        for method in experiment.methods
        for hook in hooks_of(experiment, method, context, layout)
        if hook.most_clients is not None
    ]
    return min(limits, default=None)


def _expect_the_others(roster: Roster, weight: Floats) -> None:
    """Have the roster hold for away, with its examples by its weight, who has not come back."""
    back = [n for n, name in enumerate(roster.names) if name in roster.members]
    claimed = [roster.members[roster.names[n]].facts["examples"] / weight[n] for n in back]
    # Whose claim was limited stands above the others; half of them at least tell the scale.
    scale = sorted(claimed)[(len(claimed) - 1) // 2]
    for name, own in zip(roster.names, weight, strict=True):
        roster.members.setdefault(name, Member(name, AWAY, {"examples": round(own * scale)}))


def _examples(experiment: Experiment, roster: Roster) -> Floats:
    said = [_said(roster, name) for name in roster.names]
    checks = experiment.checks
    return believed_examples(said, checks.examples_factor, checks.most_weight)


def _said(roster: Roster, name: str) -> int:
    """Return how many examples a client claims; one for a client that was turned away since."""
    member = roster.members.get(name)
    return 1 if member is None else int(member.facts["examples"])


def limited_claims(experiment: Experiment, roster: Roster) -> list[str]:
    """Say of each client that claims more examples than it is believed to have what counts."""
    told = []
    for name, believed in zip(roster.names, _examples(experiment, roster), strict=True):
        claimed = _said(roster, name)
        if claimed > believed * (1 + 1e-9):
            told.append(
                f"{name} says it has {claimed} examples; it counts as {believed:.0f} "
                "([checks] examples_factor, most_weight)"
            )
    return told
