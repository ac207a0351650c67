"""What [privacy] asks of an experiment: the terms, whom it refuses and why, what its plans cost."""

from collections.abc import Mapping

from fedpace.core.errors import InputError
from fedpace.core.plan import Plan
from fedpace.core.privacy import Privacy
from fedpace.core.profile import Clients
from fedpace.estimation.privacy_loss import PrivacyLimit, require_accountant
from fedpace.experiment.config import Experiment
from fedpace.federation.hooks.clipping import PRIVATE_DTYPES
from fedpace.federation.privacy import nothing_spent, rounds_within

__all__ = ["check_plan", "check_privacy", "privacy_limit", "privacy_of"]

_OVER_WHO_CAME = "divides by the data of those who came, so that one client moves the weight of all"
_NOT_INDEPENDENT = (
    "keeps a number of clients busy, so that who starts depends on who has finished, which no "
    "theorem on independent samples covers"
)
_REFUSED: Mapping[str, str] = {
    "fedit": _OVER_WHO_CAME,
    "ffa-lora": _OVER_WHO_CAME,
    "flasc": _OVER_WHO_CAME,
    "hetlora": "weighs by the norms of all who came, so that one client moves the weight of all",
    "flexlora": "takes an SVD of products, and clipping A and B does not bound its change",
    "flora": "stacks and merges products, and clipping A and B does not bound their change",
    "fedasync": _NOT_INDEPENDENT,
    "fedbuff": _NOT_INDEPENDENT,
    "ca2fl": _NOT_INDEPENDENT,
    "fadas": _NOT_INDEPENDENT,
    "infocom22": "draws with replacement, where a client may count several times in a round",
}  # fmt: skip
"""Methods for whose sum the argument of docs/theory.md, section 10, fails, and where."""


def privacy_of(experiment: Experiment) -> Privacy | None:
    """Return what is kept private; None where [privacy] is not there."""
    section = experiment.privacy
    if section.clip_norm is None or section.noise_multiplier is None or section.delta is None:
        return None
    return Privacy(section.clip_norm, section.noise_multiplier, section.delta, section.max_epsilon)


def privacy_limit(experiment: Experiment) -> PrivacyLimit | None:
    """Return what a plan may cost any client over the whole run; None without a limit."""
    privacy = privacy_of(experiment)
    if privacy is None or privacy.max_epsilon is None:
        return None
    return PrivacyLimit(
        privacy.noise_multiplier, privacy.delta, privacy.max_epsilon, experiment.training.rounds
    )


def check_privacy(experiment: Experiment) -> None:
    """Refuse what cannot be kept private, with the reason.

    Raises:
        InputError: a method, a schedule, a memory, a type of the uplink; or half a section.
        MissingExtraError: the accountant is not installed.
    """
    if privacy_of(experiment) is None:
        return
    names = {m: experiment.planner.name if m == "adaptive" else m for m in experiment.methods}
    for method, name in names.items():
        if name in _REFUSED:
            ours = method == "adaptive"
            what = f"[planner] name = {name!r}" if ours else f"method {method!r}"
            raise InputError(
                f"[privacy] with {what}: {name} {_REFUSED[name]}; take "
                f"{'exact' if ours else 'adaptive'!r} or a planner that samples independently, or "
                "leave [privacy] out"
            )
    training, dtype = experiment.training, experiment.upload_dtype
    if training.server_memory:
        raise InputError(
            f"[privacy] with [training] server_memory = {training.server_memory:g}: an update that "
            "is remembered counts again in every later round, which no clip bounds; set it to 0"
        )
    if training.schedule == "overlapping":
        raise InputError(
            f"[privacy] with [training] schedule = {training.schedule!r}: a busy client cannot "
            "start, so starts are not independent, and a late update has a weight without a bound "
            "known beforehand; set schedule = 'synchronous', or leave it out"
        )
    if dtype not in PRIVATE_DTYPES:
        raise InputError(
            f"[privacy] with [lora] upload_dtype = {dtype!r}: rounding at random may make an "
            f"update longer than clip_norm; choose of {', '.join(PRIVATE_DTYPES)}"
        )
    require_accountant()


def check_plan(experiment: Experiment, method: str, plan: Plan, clients: Clients) -> None:
    """Refuse a run that would pass max_epsilon, before it begins.

    Args:
        experiment: has the limit and the rounds.
        method: for the message.
        plan: the first one.
        clients: for whom it was made.

    Raises:
        InputError: names the round and the client.
    """
    privacy, rounds = privacy_of(experiment), experiment.training.rounds
    if privacy is None or privacy.max_epsilon is None:
        return
    if plan.verdict.startswith("infeasible"):
        raise InputError(f"method {method!r}: {plan.verdict}")
    weight = clients.data_weight / plan.sampling_probability / clients.availability
    allowed, first = rounds_within(nothing_spent(), plan, weight, privacy, rounds)
    if allowed < rounds:
        raise InputError(
            f"[privacy] max_epsilon = {privacy.max_epsilon:g}: client "
            f"{str(clients.client_id[first])!r} would pass it in round {allowed + 1} of {rounds} "
            f"with method {method!r}; raise it or noise_multiplier, or lower [training] rounds"
        )
