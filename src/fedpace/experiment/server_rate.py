"""What the server's rate is multiplied by: for the schedule, and for the noise as measured."""

import numpy as np

from fedpace.core.errors import InputError
from fedpace.core.plan import Plan
from fedpace.estimation.noise_scale import NoiseScale
from fedpace.experiment.config import Experiment
from fedpace.experiment.methods import METHODS
from fedpace.experiment.privacy import privacy_of
from fedpace.planning.overlap.step import DECAY_POWER, server_rate_factor, useful_rate
from fedpace.planning.renewal import Renewal

__all__ = ["DOUBT", "check_decay", "rate_factor", "schedule_factor", "tuned_for"]

DOUBT = 0.5
"""How far the signal is taken to lie towards the upper end of its interval: about a standard error.
Without it a chance reading lowers the rate where nothing changes: by a fifth in the mean, with
eight times as much noise as signal in thirty directions."""


def check_decay(experiment: Experiment, method: str) -> None:
    """Refuse a rate that follows the noise where the noise is not measured.

    Raises:
        InputError: names the method, or the section, and what to change.
    """
    if experiment.training.server_decay == "none":
        return
    entry = METHODS[method]
    if entry.published is not None or entry.asynchronous is not None:
        raise InputError(
            f"[training] server_decay = 'noise' with method {method!r}: its aggregate has a bias, "
            "so the noise in it is not measured; set 'none', or leave the method out"
        )
    if privacy_of(experiment) is not None:
        raise InputError(
            "[training] server_decay = 'noise' with [privacy]: the norms of updates, of which the "
            "noise is measured, are not covered by what is added; set 'none'"
        )


def schedule_factor(experiment: Experiment, plan: Plan) -> float:
    """Return what one tuned rate is multiplied by for a schedule: 1 in rounds that wait.

    Args:
        experiment: its [training] is read.
        plan: what is in force.
    """
    training, known = experiment.training, plan.statistics
    if plan.beat_seconds is None:
        return 1.0
    if training.beat_rate_factor is not None:
        return training.beat_rate_factor
    return server_rate_factor(
        training.server_optimizer, known["beat_noise"], known["tuned_noise"],
        delay_beats=known["delay_beats"],
    )  # fmt: skip


def rate_factor(experiment: Experiment, plan: Plan, renewal: Renewal, tuned: float) -> float:
    """Return what the server's rate is multiplied by in the next step.

    Args:
        experiment: its [training] is read.
        plan: what is in force.
        renewal: knows the noise of the steps so far.
        tuned: what `tuned_for` said.

    Returns:
        `schedule_factor`, at most. With `server_decay` = "noise" it falls as the useful rate to the
        `DECAY_POWER` does, from when the noise is first known; where it is not, it stays. The
        useful rate is the one of a signal larger than estimated by `DOUBT`.
    """
    most = schedule_factor(experiment, plan)
    if experiment.training.server_decay == "none" or np.isnan(tuned):
        return most
    useful = _useful(experiment, plan, renewal.noise_scale(), DOUBT)
    return most if np.isnan(useful) else min(most, (useful / tuned) ** DECAY_POWER)


def tuned_for(experiment: Experiment, plan: Plan, renewal: Renewal, known: float) -> float:
    """Return the useful rate at which the given one is right as it is, by the first that is known.

    Args:
        experiment: its [training] is read.
        plan: what was in force.
        renewal: knows the noise of the steps so far.
        known: what this function said before; nan at first.

    Returns:
        nan until the noise is known well enough and a signal stands out of it, then the value of
        that time.
    """
    if experiment.training.server_decay == "none" or not np.isnan(known):
        return known
    noise = renewal.noise_scale()
    if not (noise.sufficient and np.isfinite(noise.ratio_interval[1])):
        return np.nan
    factor = schedule_factor(experiment, plan)
    return _useful(experiment, plan, noise, 0.0) / factor ** (1 / DECAY_POWER)


def _useful(experiment: Experiment, plan: Plan, noise: NoiseScale, doubt: float) -> float:
    """Return it by what is known now; nan where nothing is."""
    least_ratio = noise.ratio_interval[0]
    if doubt and least_ratio == 0:  # any signal may be behind it
        return np.nan
    signal = max(noise.cross_product, 0.0)
    signal += doubt * max(noise.v_full / least_ratio - signal, 0.0) if doubt else 0.0
    square = signal + noise.v_run
    return useful_rate(
        experiment.training.server_optimizer,
        square,
        noise.v_run / square,
        delay_beats=0.0 if plan.beat_seconds is None else plan.statistics["delay_beats"],
    )
