"""What a run does all the same, and a person should know before it does."""

import logging

from fedpace.core.plan import Plan

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
