"""The figures of `fedpace plan --plot`: of the plan's own problem, with every limit that it has."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fedpace.core.errors import InputError
from fedpace.core.plan import Plan
from fedpace.core.profile import Clients, Floats, System
from fedpace.core.rng import rng_for
from fedpace.experiment.config import Scenario
from fedpace.experiment.methods import planner_options
from fedpace.experiment.scenario import as_planned
from fedpace.planning.overlap.described import at_beats
from fedpace.planning.planner import plan, quantile_used
from fedpace.planning.renewal import expected_seconds
from fedpace.planning.round_time.distribution import round_time, simulate_round_seconds
from fedpace.wireless.latency import start_seconds, upload_alone_seconds
from fedpace.wireless.network import Network, planning_clients
from fedpace.wireless.population import upload_compute_ratio

__all__ = ["Curves", "draw_plan", "of_schedules", "of_sweeps"]

_COMPARED = 60
"""More clients than this are compared over the schedules by a sample."""
_SWEPT = 300
"""More clients than this are swept over by a sample."""
_SIMULATED = 2e7
"""Clients times rounds that are simulated for the figure, about."""
_GAP = "where a line has no point, no plan keeps the limits"

_Objective = Callable[[Clients, System], float]
"""Predicted seconds times relative rounds of the plan for a population; NaN where none is right."""


@dataclass(frozen=True, slots=True, eq=False)
class Curves:
    """What one figure of predicted times shows."""

    panels: Mapping[str, tuple[Sequence[float], Mapping[str, Sequence[float]]]]
    """By axis label: the values, and by line the predicted seconds times relative rounds."""
    notes: Sequence[str]
    """What is to be said of the lines."""

    def label(self) -> str:
        """Return what stands at the figure's axis of times."""
        return "\n".join(["predicted seconds × relative rounds", *self.notes])


def draw_plan(made: Plan, scenario: Scenario, network: Network, folder: Path) -> Sequence[Path]:
    """Draw q and k against speed and link, the round time, and sweeps; return the files.

    Args:
        made: the plan of the scenario, by its planner or another.
        scenario: as given.
        network: its population.
        folder: where the figures go.
    """
    from fedpace.reporting.plots import plan_map, predicted_times

    folder.mkdir(parents=True, exist_ok=True)  # first: it may be a place where none can be made
    clients, system = planning_clients(network), network.system
    rank = np.full(len(clients), float(system.lora_rank))
    schedules = of_schedules(made, scenario, network)
    figures = {
        "clients": plan_map(
            start_seconds(clients, system, rank), upload_alone_seconds(clients, system, rank), made
        ),
        "schedules": predicted_times(schedules.panels, schedules.label()),
    }
    if made.schedule == "synchronous":
        figures |= _of_rounds(made, scenario, network)
    files = []
    for name, figure in figures.items():
        files.append(folder / f"{name}.png")
        figure.savefig(files[-1], dpi=150)
    return files


def _of_rounds(made: Plan, scenario: Scenario, network: Network) -> dict[str, Any]:
    """The figures of synchronous rounds: how long one takes, and sweeps."""
    from fedpace.reporting.plots import predicted_times, round_time_distribution

    clients, system = planning_clients(network), network.system
    law = round_time(made, clients, system)
    draws = int(np.clip(_SIMULATED / len(clients), 200, 2000))
    simulated = simulate_round_seconds(made.decision, clients, system, draws, scenario.seed)
    grid = np.linspace(0, max(law.quantile(0.999), float(simulated.max())), 300)
    sweeps = of_sweeps(made, scenario, network)
    return {
        "round-time": round_time_distribution(grid, law.cdf(grid), simulated),
        "sweeps": predicted_times(sweeps.panels, sweeps.label()),
    }


def of_schedules(made: Plan, scenario: Scenario, network: Network) -> Curves:
    """Predicted objective over the spread of computing and its share, of every schedule.

    Args:
        made: the plan of the scenario; the lines are of its planner.
        scenario: as given.
        network: its population.
    """
    asked, by = _as_minimised(scenario, made)
    (asked, clients, system), sample = _sampled(asked, network, _COMPARED, 103)
    lines: dict[str, _Objective] = {"synchronous": _of_waiting(asked)}
    beats, why = _of_beats(asked, made, system)
    if beats is not None:
        # Rounds that wait have no bias: who compares the lines has to know that the other may.
        most = asked.planner.max_bias
        lines[f"overlapping, bias up to {most:g}" if most else "overlapping"] = beats
    step = clients.step_seconds + system.lora_rank * clients.step_seconds_per_rank
    middle = np.exp(np.mean(np.log(np.maximum(step, 1e-12))))
    own = {name: objective(clients, system) for name, objective in lines.items()}

    def times(factors: Mapping[float, Floats]) -> dict[str, list[float]]:
        found: dict[str, list[float]] = {name: [] for name in lines}
        for at, factor in factors.items():
            changed = replace(
                clients,
                step_seconds=clients.step_seconds * factor,
                step_seconds_per_rank=clients.step_seconds_per_rank * factor,
            )
            for name, objective in lines.items():
                found[name].append(own[name] if at == 1 else objective(changed, system))
        return found

    powers, ratios = (0.0, 0.5, 1.0, 1.5), (0.25, 0.5, 1.0, 2.0, 4.0)
    spread = float(np.std(np.log(np.maximum(step, 1e-12))))
    ratio = upload_compute_ratio(clients, system)
    panels = {
        "spread of ln(step time)": (
            [spread * power for power in powers],
            times({power: (np.maximum(step, 1e-12) / middle) ** (power - 1) for power in powers}),
        ),
        "upload over computation": (
            [ratio * each for each in ratios],
            times({r: np.full(len(step), 1 / r) for r in ratios}),
        ),
    }  # fmt: skip
    return Curves(panels, [*sample, *by, *why, *_gaps(panels)])


def of_sweeps(made: Plan, scenario: Scenario, network: Network) -> Curves:
    """Predicted objective of the plan and of uniform sampling over band, clients and rank.

    Where clients are many, of a sample: its curves have the same shape, but lie lower, as it lacks
    the very slowest.

    Args:
        made: the plan of the scenario, of rounds that wait.
        scenario: as given.
        network: its population.
    """
    asked, by = _as_minimised(scenario, made)
    whole = len(network.clients)
    (asked, clients, system), sample = _sampled(asked, network, _SWEPT, 102)
    lines = {name: _of_waiting(as_planned(asked, name)) for name in (made.planner, "uniform")}
    count, rank, stands_for = len(clients), system.lora_rank, whole / len(clients)
    own = {name: objective(clients, system) for name, objective in lines.items()}

    def times(problems: Sequence[tuple[Clients, System]]) -> dict[str, list[float]]:
        return {
            name: [
                own[name] if c is clients and s is system else objective(c, s) for c, s in problems
            ]
            for name, objective in lines.items()
        }

    def changed(key: str, value: float) -> System:
        same = value == getattr(system, key)
        return system if same else replace(system, **{key: value})

    bands = [system.bandwidth_hz * f for f in (0.25, 0.5, 1, 2, 4)]
    counts = sorted({max(1, round(count * f)) for f in (0.125, 0.25, 0.5, 0.75, 1)})
    ranks = sorted({max(1, round(rank * f)) for f in (0.125, 0.25, 0.5, 1, 2)})
    order = rng_for(scenario.seed, "population", 101).permutation(count)
    panels = {
        "bandwidth, MHz": (
            [b * stands_for / 1e6 for b in bands],
            times([(clients, changed("bandwidth_hz", b)) for b in bands]),
        ),
        "clients": (
            [round(c * stands_for) for c in counts],
            times([
                (clients if c == count else clients.take(np.sort(order[:c])), system)
                for c in counts
            ]),
        ),
        "rank r of the adapter": (
            ranks, times([(clients, changed("lora_rank", r)) for r in ranks]),
        ),
    }  # fmt: skip
    return Curves(panels, [*sample, *by, *_gaps(panels)])


def _as_minimised(scenario: Scenario, made: Plan) -> tuple[Scenario, Sequence[str]]:
    """The scenario with what the plan minimises, by which every line is; and what says so."""
    asked = as_planned(scenario, made.planner)
    quantile = quantile_used(made.planner, asked.planner.quantile)
    section = asked.planner.model_copy(update={"quantile": quantile})
    by = [] if quantile is None else [f"(of rounds that wait, the {quantile:g} quantile)"]
    return asked.model_copy(update={"planner": section}), by


def _of_waiting(asked: Scenario) -> _Objective:
    """The plan of rounds that wait, with the limits of the scenario."""
    training = asked.training.model_copy(
        update={"schedule": "synchronous", "beat_seconds": None, "beat_rate_factor": None}
    )
    planner = asked.planner.model_copy(update={"max_bias": 0.0})
    waits = asked.model_copy(update={"training": training, "planner": planner})
    options = planner_options(waits, "adaptive")

    def objective(clients: Clients, system: System) -> float:
        made = plan(clients, system, **options, predict=False)
        if not _right(made):
            return np.nan
        return expected_seconds(made, clients, system, options["quantile"])

    return _where_possible(objective)


def _of_beats(
    asked: Scenario, made: Plan, system: System
) -> tuple[_Objective | None, Sequence[str]]:
    """The plan of rounds that overlap, with the limits of the scenario; or why there is none."""
    training = asked.training.model_copy(update={"schedule": "overlapping"})
    options = planner_options(asked.model_copy(update={"training": training}), "adaptive")
    if "schedule" not in options and made.schedule == "overlapping":
        beat = made.beat_seconds
        assert beat is not None

        def followed(clients: Clients, system: System) -> float:
            rounds = plan(clients, system, **options, predict=False)
            beats = at_beats(rounds, clients, system, beat)
            return beats.objective_seconds if _right(rounds) else np.nan

        return _where_possible(followed), []
    given = {"quantile": options["quantile"], "max_participants": options["max_participants"],
             "[privacy]": asked.privacy.clip_norm, "server_memory": training.server_memory or None,
             f"planner {made.planner!r}": None if made.planner == "exact" else made.planner,
             f"allocation {system.allocation!r}":
             None if system.allocation == "work-conserving" else system.allocation}  # fmt: skip
    if causes := [name for name, value in given.items() if value is not None]:
        return None, ["no line of rounds that overlap:", f"they cannot have {', '.join(causes)}"]

    def planned(clients: Clients, system: System) -> float:
        beats = plan(clients, system, **options)
        return beats.objective_seconds if _right(beats) else np.nan

    return _where_possible(planned), []


def _right(made: Plan) -> bool:
    return not made.verdict.startswith("infeasible")


def _where_possible(objective: _Objective) -> _Objective:
    """NaN where what is asked for contradicts itself: with a beat that another band cannot serve.

    The plan itself was made, so that its own point is never of these.
    """

    def found(clients: Clients, system: System) -> float:
        try:
            return objective(clients, system)
        except InputError:
            return np.nan

    return found


def _gaps(
    panels: Mapping[str, tuple[Sequence[float], Mapping[str, Sequence[float]]]],
) -> Sequence[str]:
    values = [value for _, lines in panels.values() for line in lines.values() for value in line]
    return [_GAP] if np.any(np.isnan(values)) else []


def _sampled(
    asked: Scenario, network: Network, most: int, purpose: int
) -> tuple[tuple[Scenario, Clients, System], Sequence[str]]:
    """The problem, of `most` clients at most, and what is to be said of it.

    In a band as much narrower each has the same share of it, and the same q is best; so is the
    limit on how many a round asks.
    """
    clients, system = planning_clients(network), network.system
    stands_for = len(clients) / most
    if stands_for <= 1:
        return (asked, clients, system), []
    chosen = rng_for(asked.seed, "population", purpose).permutation(len(clients))[:most]
    system = replace(system, bandwidth_hz=system.bandwidth_hz / stands_for)
    if (limit := asked.planner.max_participants) is not None:
        section = asked.planner.model_copy(update={"max_participants": limit / stands_for})
        asked = asked.model_copy(update={"planner": section})
    return (asked, clients.take(np.sort(chosen)), system), [f"(a sample of {most} clients)"]
