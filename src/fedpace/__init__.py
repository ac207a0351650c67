"""FedPace: federated LoRA over heterogeneous wireless networks, in the least wall-clock time.

The names below are the public ones; everything else may change. Importing `fedpace` loads nothing:
each name is loaded when it is first used, and only `run` and `resume` load torch. Flower's own
processes and the proxy, which need none of them, start the sooner.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedpace.core.errors import FedPaceError, InputError, MissingExtraError, RunError
    from fedpace.core.plan import Plan
    from fedpace.core.profile import ClientProfile, Clients, System
    from fedpace.core.sketch import Sketch, sketch_named
    from fedpace.experiment.config import Experiment, load_experiment
    from fedpace.experiment.run import RunRecord, resume, run
    from fedpace.federation.aggregation import Aggregation, MethodContext
    from fedpace.federation.engine import Engine
    from fedpace.federation.hooks.hook import UpdateHook
    from fedpace.planning.bound import Bound, BoundConstants, convergence_bound
    from fedpace.planning.planner import Planner, plan
    from fedpace.planning.round_time.distribution import RoundTime, round_time
    from fedpace.planning.solver.objective import Problem, Solution
    from fedpace.wireless.bandwidth import Allocation, allocate_bandwidth
    from fedpace.wireless.links import Link
    from fedpace.wireless.population import Scenario, draw_clients

__all__ = [
    "Aggregation",
    "Allocation",
    "Bound",
    "BoundConstants",
    "ClientProfile",
    "Clients",
    "Engine",
    "Experiment",
    "FedPaceError",
    "InputError",
    "Link",
    "MethodContext",
    "MissingExtraError",
    "Plan",
    "Planner",
    "Problem",
    "RoundTime",
    "RunError",
    "RunRecord",
    "Scenario",
    "Sketch",
    "Solution",
    "System",
    "UpdateHook",
    "allocate_bandwidth",
    "convergence_bound",
    "draw_clients",
    "load_experiment",
    "plan",
    "resume",
    "round_time",
    "run",
    "sketch_named",
]

_HOMES = {
    "experiment.config": ("Experiment", "load_experiment"),
    "core.errors": ("FedPaceError", "InputError", "MissingExtraError", "RunError"),
    "core.plan": ("Plan",),
    "core.profile": ("ClientProfile", "Clients", "System"),
    "core.sketch": ("Sketch", "sketch_named"),
    "federation.aggregation": ("Aggregation", "MethodContext"),
    "federation.engine": ("Engine",),
    "federation.hooks.hook": ("UpdateHook",),
    "planning.bound": ("Bound", "BoundConstants", "convergence_bound"),
    "planning.planner": ("Planner", "plan"),
    "planning.solver.objective": ("Problem", "Solution"),
    "planning.round_time.distribution": ("RoundTime", "round_time"),
    "experiment.run": ("RunRecord", "resume", "run"),
    "wireless.bandwidth": ("Allocation", "allocate_bandwidth"),
    "wireless.links": ("Link",),
    "wireless.population": ("Scenario", "draw_clients"),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"fedpace.{home}"), name)
    raise AttributeError(f"module 'fedpace' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
