"""What a run does all the same, and a person should know before it does."""

import logging
import math

from fedpace.core.plan import Plan
from fedpace.experiment.build import Setup
from fedpace.federation.buffered import concurrency

logger = logging.getLogger(__name__)


def warn_of_infeasible(method: str, made: Plan, before: Plan | None = None) -> None:
    """Say of a plan that breaks a limit that it is followed.

    Args:
        method: whose plan it is.
        made: what is in force from now on.
        before: what was; of one that broke a limit, too, it was said.
    """
    if _breaks_a_limit(made) and not (before is not None and _breaks_a_limit(before)):
        logger.warning("method %r runs with a plan that breaks a limit: %s", method, made.verdict)


def _breaks_a_limit(made: Plan) -> bool:
    return made.verdict.startswith("infeasible")


def warn_of_buffer(setup: Setup, made: Plan) -> None:
    """Say of a buffer that cannot fill that its method waits for all, as rounds do.

    Args:
        setup: of a method, asynchronous or not.
        made: its plan.
    """
    size, clients = setup.aggregation.buffer, setup.network.clients
    there = float(clients.availability.sum())
    if size is None or size <= there:
        return
    logger.warning(
        "method %r: [training] buffer_size = %d is more than can arrive: a step takes one update "
        "of a client, and %.3g of %d are there (%d busy at once); so the server waits for all of "
        "them, as rounds do; set buffer_size to %d at most",
        setup.method, size, there, len(clients), concurrency(made), max(1, math.ceil(there) - 1),
    )  # fmt: skip
