"""From [network] to devices, links and a band; needs no torch."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from fedpace.core.errors import InputError
from fedpace.core.profile import Clients, Floats, System
from fedpace.core.sketch import sketch_named
from fedpace.experiment.config import Experiment
from fedpace.wireless.clients_file import read_clients
from fedpace.wireless.gain_trace import read_gain_trace
from fedpace.wireless.gains import Gains, MarkovGains, TraceGains
from fedpace.wireless.network import Network
from fedpace.wireless.population import Scenario, draw_clients, scenario_named

DRAWN = (
    "upload_compute_ratio",
    "ratio_cohort",
    "step_spread",
    "shadowing_db",
    "size_slowness_correlation",
    "small_memory_share",
)
"""What [network] may say in place of its scenario."""


def build_network(
    experiment: Experiment,
    data_weight: Floats | None,
    *,
    fixed_bits: float,
    bits_per_rank: float,
) -> Network:
    """Make the devices, the links and the system they share.

    Args:
        experiment: its [network], [lora], [training] and [planner] are read.
        data_weight: share of the data that each client has, shape (N,); None takes the weights of
            the clients file.
        fixed_bits: bits a client sends whatever its rank.
        bits_per_rank: bits for each rank component.

    Raises:
        InputError: an unknown scenario, a wrong clients file, or another number of clients than
            [data] deals to.
    """
    section = experiment.network
    own = {key: value for key in DRAWN if (value := getattr(section, key)) is not None}
    scenario = _as_asked(scenario_named(section.scenario), own)
    # The cohort alone says nothing: it may stand in a file whose population another one replaces.
    drawn = [key for key in own if key != "ratio_cohort"]
    if drawn and section.clients is not None:
        raise InputError(
            f"[network] {drawn[0]} and clients exclude each other: the former draws a "
            "population, the latter reads one; remove one of them"
        )
    if section.shadowing_db is not None and scenario.uplink_bps is not None:
        raise InputError(
            f"[network] shadowing_db: clients of the scenario {section.scenario!r} have uplinks of "
            "their own, which no cell shadows; leave it out"
        )
    system = System(
        bandwidth_hz=section.bandwidth_hz or scenario.bandwidth_hz,
        lora_rank=experiment.lora.rank,
        local_steps=experiment.training.local_steps,
        fixed_bits=fixed_bits,
        bits_per_rank=bits_per_rank,
        sketch=sketch_named(experiment.lora.sketch),
        noise_ratio=experiment.planner.noise_ratio,
        downlink_bps=section.downlink_bps or np.inf,
        overhead_seconds=section.overhead_seconds,
        allocation=section.allocation,
        fading=section.fading,
    )
    if section.clients is not None:
        clients = read_clients(Path(section.clients))
        if data_weight is not None:
            check_count(section.clients, len(clients), len(data_weight))
            clients = Clients.from_columns(**{**clients.columns(), "data_weight": data_weight})
    elif data_weight is not None:
        clients = draw_clients(scenario, data_weight, experiment.seed, system)
    else:
        raise InputError("a drawn population needs data weights; give them or a clients file")
    gains = _gains(experiment, len(clients), system)
    return Network(clients, system, gains, section.best_first)


def check_count(source: str, count: int, asked: int) -> None:
    """Refuse another number of clients than a file of clients has.

    Args:
        source: the file, for the error.
        count: clients in it.
        asked: [data] clients.

    Raises:
        InputError: they differ; the message says what to set.
    """
    if count != asked:
        raise InputError(
            f"{source} has {count} clients, but [data] clients is {asked}; set it to {count}"
        )


def _as_asked(scenario: Scenario, own: Mapping[str, float]) -> Scenario:
    """Return a scenario with what [network] says in its place; what it cannot be is told there."""
    for key, value in own.items():
        try:
            scenario = replace(scenario, **{key: value})  # type: ignore[arg-type]
        except InputError as error:
            raise InputError(f"[network] {key} = {value!r}: {error}") from None
    return scenario


def _gains(experiment: Experiment, num_clients: int, system: System) -> Gains | None:
    """Return how the links change within a round; None where they do not."""
    section, seed = experiment.network, experiment.seed
    asked = [key for key in ("gain_trace", "gain_db") if getattr(section, key) is not None]
    if not asked:
        if section.best_first:
            raise InputError(
                "[network] best_first = true: links that do not change stand equally well; set "
                "gain_trace or gain_db, or leave it out"
            )
        return None
    name = asked[0]
    if len(asked) == 2 or section.fading:
        raise InputError(
            f"[network] {name} and {'fading' if section.fading else asked[1]} exclude each other: "
            "each says how links change; keep one of them"
        )
    if section.allocation != "work-conserving":
        raise InputError(
            f"[network] {name}: allocation = {section.allocation!r} fixes shares before links "
            "change; set 'work-conserving'"
        )
    if section.gain_trace is None:
        assert section.gain_db is not None
        return MarkovGains(seed, num_clients, section.gain_db, section.gain_seconds)
    try:
        trace = read_gain_trace(Path(section.gain_trace))
    except InputError as error:
        raise InputError(f"[network] gain_trace: {error}") from None
    rounds = experiment.training.rounds
    least = rounds * (experiment.training.beat_seconds or section.overhead_seconds)
    # Before a target a run may end sooner; by its plan `schedule.check_trace` can tell.
    if trace.length_seconds < least and experiment.training.target is None:
        raise InputError(
            f"[network] gain_trace = {section.gain_trace!r} lasts {trace.length_seconds:g} s, and "
            f"{rounds} rounds at least {least:g} s; give a longer trace, or fewer rounds"
        )
    return TraceGains.drawn(trace, seed, num_clients, system.bandwidth_hz)
