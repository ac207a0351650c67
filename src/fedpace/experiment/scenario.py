"""Plan for a described population: without [model] no data is read, and no torch needed."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.table import Table
from rich.text import Text

from fedpace.core.errors import MissingExtraError
from fedpace.core.plan import Plan
from fedpace.core.rng import rng_for
from fedpace.experiment.config import Scenario
from fedpace.experiment.methods import check_schedule, make_plan
from fedpace.experiment.network import build_network, check_count
from fedpace.experiment.parsing import parse
from fedpace.experiment.privacy import check_privacy
from fedpace.experiment.server_rate import check_decay
from fedpace.experiment.toml_files import anchor, read_toml, set_key
from fedpace.experiment.unused import check_used
from fedpace.federation.hooks.rounding import UPLOAD_BITS
from fedpace.wireless.latency import start_seconds, upload_alone_seconds
from fedpace.wireless.network import Network, planning_clients

_SHOWN = 20
"""More clients than this are told by a sample of rows."""
_LARGE_FLEET = 100
"""From so many clients a plan that asks for a large share of them says so."""
_LARGE_SHARE = 0.2
"""Share of the fleet that is large."""
_LONG_STEP_SECONDS = 60.0
"""A local step that is longer, s, is seldom meant."""


def load_scenario(path: Path, overrides: Sequence[str] = ()) -> Scenario:
    """Read a scenario file; an experiment file is one, too.

    Args:
        path: a TOML file.
        overrides: "section.key=value" texts, applied on top.

    Raises:
        InputError: what is wrong, where, and what would be right; or a key that nothing uses.
    """
    table = read_toml(path)
    anchor(table, path.parent)
    for override in overrides:
        set_key(table, override)
    scenario = parse(Scenario, table, str(path))
    check_used(scenario, also=["adaptive"])
    return scenario


def scenario_network(scenario: Scenario) -> Network:
    """Make the population of a scenario.

    Where [model] is given and no [payload], data and messages are those of a run; otherwise a file
    of clients says itself how much data each has, and other sizes are log-normal.
    """
    given, weight = scenario.model_fields_set, None
    if "model" in given and "payload" not in given:
        return _network_of_a_run(scenario)
    if scenario.network.clients is None:
        # A purpose of its own: those below 100 belong to devices and links.
        normal = rng_for(scenario.seed, "population", 100).standard_normal(scenario.data.clients)
        weight = np.exp(scenario.data.size_sigma * normal)
    fixed_bits, bits_per_rank = scenario.payload.fixed_bits, scenario.payload.bits_per_rank
    network = build_network(scenario, weight, fixed_bits=fixed_bits, bits_per_rank=bits_per_rank)
    source, asked = scenario.network.clients, scenario.data
    if source is not None and "clients" in asked.model_fields_set:  # as a run, which deals to them
        check_count(source, len(network.clients), asked.clients)
    share = UPLOAD_BITS[scenario.upload_dtype] / 32  # the links stay those of float32
    system = replace(
        network.system, fixed_bits=share * fixed_bits, bits_per_rank=share * bits_per_rank,
        download_fixed_bits=fixed_bits, download_bits_per_rank=bits_per_rank,
    )  # fmt: skip
    return replace(network, system=system)


def plan_scenario(scenario: Scenario, network: Network, planner: str | None = None) -> Plan:
    """Plan for a scenario, by its own planner or the one named, as `fedpace run` would follow it.

    Raises:
        InputError: what a run would refuse of the plan.
    """
    asked = as_planned(scenario, planner)
    check_privacy(asked.model_copy(update={"methods": ["adaptive"]}))
    check_schedule(asked, "adaptive")
    check_decay(asked, "adaptive")
    return make_plan(asked, network, "adaptive")


def as_planned(scenario: Scenario, planner: str | None = None) -> Scenario:
    """Return a scenario as the plan of its method "adaptive" reads it.

    Args:
        scenario: as given.
        planner: in place of its own.
    """
    if planner is not None:
        section = scenario.planner.model_copy(update={"name": planner})
        scenario = scenario.model_copy(update={"planner": section})
    # A cohort may be meant for the other methods of a run, if the file names some.
    if "methods" in scenario.model_fields_set:
        return scenario
    return scenario.model_copy(update={"methods": ["adaptive"]})


def plan_table(made: Plan, network: Network) -> Table:
    """Return a table of the clients' probabilities and ranks, at most a screen of them."""
    clients, system = planning_clients(network), network.system
    start = start_seconds(clients, system, made.sketch_rank)
    alone = upload_alone_seconds(clients, system, made.sketch_rank)
    binding = _binding(made)
    table = Table(box=None, pad_edge=False, header_style="bold")
    rates = made.updates_per_second if made.schedule == "overlapping" else None
    every = () if rates is None else ("update every s",)
    share = made.aggregation_weight
    counts = () if share is None else ("counts %",)
    seconds = ("ready s", "upload alone s")
    for column in ("client", "data %", *counts, *seconds, "q", "k", *every, "held by"):
        table.add_column(column, justify="left" if column in ("client", "held by") else "right")
    rows = np.argsort(-made.sampling_probability, kind="stable")
    if len(rows) > _SHOWN:
        rows = rows[np.linspace(0, len(rows) - 1, _SHOWN).round().astype(int)]
        table.caption = f"{_SHOWN} of {len(made)} clients, from the most to the least often asked"
    for n in rows:
        table.add_row(
            Text(str(made.client_id[n])), f"{100 * clients.data_weight[n]:.2f}",
            *(() if share is None else (f"{100 * share[n]:.2f}",)),
            f"{start[n]:.3g}", f"{alone[n]:.3g}", f"{made.sampling_probability[n]:.4f}",
            str(made.sketch_rank[n]),
            *(() if rates is None else (f"{1 / rates[n]:.3g}",)), binding.get(int(n), ""),
        )  # fmt: skip
    return table


def plan_lines(made: Plan, network: Network) -> Iterator[str]:
    """Yield what the plan promises, in sentences."""
    if made.schedule == "overlapping":
        yield from _beat_lines(made)
        return
    joining = made.participation_probability() * network.clients.availability
    yield f"{made.planner}: {made.verdict}; {joining.sum():.1f} of {len(made)} clients a round"
    yield from _warning_lines(made, network)
    empty = np.exp(np.sum(np.log1p(-np.minimum(joining, 1 - 1e-16))))
    if empty > 0.01:
        yield f"{100 * empty:.0f} % of the rounds will be empty and cost their overhead alone"
    if made.round_seconds is not None:
        t = made.round_seconds
        used = made.band_utilisation
        busy = "" if np.isnan(used) else f"; the band is in use {100 * used:.0f} % of the time"
        yield f"a round takes {t.mean:.3g} s (median {t.p50:.3g}, 95 % below {t.p95:.3g}){busy}"
    yield (
        f"rounds needed: {made.relative_rounds:.3g} times those of full participation at full rank"
    )
    yield from _gain_lines(made)


def _warning_lines(made: Plan, network: Network) -> Iterator[str]:
    """Yield what is seldom meant: a large part of a large fleet at once, steps of minutes."""
    asked = made.participation_probability().sum()
    if len(made) >= _LARGE_FLEET and asked >= _LARGE_SHARE * len(made):
        yield (
            f"note: a round asks {asked:.0f} of {len(made)} clients, a fifth of the fleet or more; "
            "[planner] max_participants limits it"
        )
    clients, system = network.clients, network.system
    step = np.median(clients.step_seconds + system.lora_rank * clients.step_seconds_per_rank)
    if step >= _LONG_STEP_SECONDS:
        yield (
            f"note: a local step takes {step:.3g} s on the median device; if that is not meant, "
            "see step_seconds of the clients file, or [network] ratio_cohort"
        )


def _beat_lines(made: Plan) -> Iterator[str]:
    """Yield what a plan of overlapping rounds promises."""
    yield f"{made.planner}: {made.verdict}; rounds overlap, a beat every {made.beat_seconds:.3g} s"
    if (counted := made.updates_per_beat()) is not None:
        yield f"{counted.sum():.3g} updates a beat"
    if made.staleness_seconds is not None:
        stale = made.staleness_seconds
        yield (
            f"an update counts {stale.mean:.3g} s after its beat (95 % below {stale.p95:.3g}); "
            f"the band is in use {100 * made.band_utilisation:.0f} % of the time"
        )
    yield (
        f"beats needed: {made.relative_rounds:.3g} times the rounds of full participation at full "
        "rank"
    )
    if (beats := made.statistics.get("beats_per_round")) is not None:
        yield f"{beats:.3g} beats make the progress of one of the best rounds that wait"
    yield from _gain_lines(made)


def _gain_lines(made: Plan) -> Iterator[str]:
    biased = made.aggregation_weight is not None
    if np.isfinite(made.limit_seconds) and made.limit_seconds > 0:
        mean = "" if made.quantile is None else "in the mean "
        yield (
            f"predicted {made.objective_seconds:.3g} s {mean}for each round of full participation, "
            f"{made.objective_seconds / made.limit_seconds:.3g} times the {made.limit_seconds:.3g} "
            f"s that any scheme {'with these shares ' if biased else ''}needs on this band"
        )
    by = ""
    if made.quantile is not None:
        by = "by that quantile "
        yield (
            f"by the {made.quantile:g} quantile of the round time: "
            f"{made.quantile_seconds:.3g} s for each round of full participation"
        )
    if made.gain:
        others = f"{by}over {'plans without a bias: ' if biased else ''}"
        yield f"predicted speed-up {others}" + ", ".join(
            f"{name} {value:.2f}x" for name, value in made.gain.items()
        )


def _binding(made: Plan) -> dict[int, str]:
    names: dict[int, list[str]] = {}
    for limit, mask in made.binds.items():
        for n in np.flatnonzero(mask):
            names.setdefault(int(n), []).append(limit)
    return {n: ", ".join(limits) for n, limits in names.items()}


def _network_of_a_run(scenario: Scenario) -> Network:
    try:
        from fedpace.experiment.build import planned_network
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "torch", "lora") from None
    return planned_network(scenario)
