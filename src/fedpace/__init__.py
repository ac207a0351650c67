"""FedPace: federated LoRA over heterogeneous wireless networks, in the least wall-clock time.

The names below are the public ones; everything else may change. Importing `fedpace` loads neither
torch nor flwr nor matplotlib: `run` and `resume` load what they need when they are first used.
"""

from typing import TYPE_CHECKING, Any

from fedpace.config import Experiment, load_experiment
from fedpace.core.errors import FedPaceError, InputError, MissingExtraError, RunError
from fedpace.core.plan import Plan
from fedpace.core.profile import ClientProfile, Clients, System
from fedpace.planning.bound import Bound, BoundConstants, convergence_bound
from fedpace.planning.planner import plan
from fedpace.planning.round_time import RoundTime, round_time
from fedpace.wireless.bandwidth import Allocation, allocate_bandwidth
from fedpace.wireless.population import Scenario, draw_clients

if TYPE_CHECKING:
    from fedpace.runs import RunRecord, resume, run

__all__ = [
    "Allocation",
    "Bound",
    "BoundConstants",
    "ClientProfile",
    "Clients",
    "Experiment",
    "FedPaceError",
    "InputError",
    "MissingExtraError",
    "Plan",
    "RoundTime",
    "RunError",
    "RunRecord",
    "Scenario",
    "System",
    "allocate_bandwidth",
    "convergence_bound",
    "draw_clients",
    "load_experiment",
    "plan",
    "resume",
    "round_time",
    "run",
]

_LOADED_ON_USE = ("RunRecord", "resume", "run")


def __getattr__(name: str) -> Any:
    if name in _LOADED_ON_USE:
        from fedpace import runs

        return getattr(runs, name)
    raise AttributeError(f"module 'fedpace' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
