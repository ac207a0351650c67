"""Small planning problems, drawn at random, for the tests of the planners."""

import numpy as np

from fedpace.core.profile import Clients, System
from fedpace.core.rng import rng_for
from fedpace.planning.solver.objective import Problem, log_objective


def some_clients(count, seed=0, spread=1.0, rank=8, **columns):
    """Log-normal data, compute, links and update norms."""
    rng = rng_for(seed, "population", count)
    size, step, link, moment = np.exp(spread * rng.standard_normal((4, count)))
    drawn = {
        "data_weight": size,
        "step_seconds": 0.9 * step,
        "step_seconds_per_rank": 0.1 * step / rank,
        "spectral_efficiency": 2 * link**0.7,
        "update_second_moment": moment**0.5,
    }
    return Clients.from_columns(**{**drawn, **columns})


def some_system(count=10, rank=8, **changes):
    """A tenth of the clients, five at least, uploads in about the time of its computation.

    All finish together, unless `changes` say otherwise: that law is the quick one to compute.
    """
    drawn = {
        "bandwidth_hz": 2e6 * max(5.0, count / 10),
        "lora_rank": rank,
        "local_steps": 5,
        "fixed_bits": 4e6,
        "bits_per_rank": 1e6,
        "noise_ratio": 0.5,
        "overhead_seconds": 0.5,
        "allocation": "equal-finish",
    }
    return System(**{**drawn, **changes})


def some_problem(count, seed=0, spread=1.0, rank=8, columns=None, system=None, **limits):
    return Problem(
        some_clients(count, seed, spread, rank, **(columns or {})),
        some_system(count, rank, **(system or {})),
        **limits,
    )


def value_of(problem, made):
    """Logarithm of the objective of a decision, or of what a planner returned."""
    return log_objective(problem, getattr(made, "decision", made))
