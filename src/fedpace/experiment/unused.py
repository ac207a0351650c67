"""Keys that somebody said and nothing uses: refused where an experiment is begun or planned.

A run that goes on is not asked: its folder may be of a time when they were let through.
"""

from collections.abc import Sequence

from fedpace.core.errors import InputError
from fedpace.experiment.config import Experiment
from fedpace.experiment.methods import method_named
from fedpace.experiment.section import Section

__all__ = ["check_used"]


def check_used(experiment: Experiment, also: Sequence[str] = ()) -> None:
    """Refuse keys that were said and can have no effect, whatever their values.

    Args:
        experiment: as read; which keys were said is known of it, not of a copy that was checked.
        also: methods that are planned for besides its own.

    Raises:
        InputError: names the key, its value and what to change; or there is no such method.
    """
    network, planner = experiment.network, experiment.planner
    names = list(dict.fromkeys([*experiment.methods, *also]))
    methods, listed = [method_named(name) for name in names], ", ".join(names)
    if network.clients is not None and _said(network, "scenario"):
        raise InputError(
            f"[network] scenario = {network.scenario!r} and clients exclude each other: the former "
            "draws a population, the latter reads one; remove one of them"
        )
    if network.gain_db is None and _said(network, "gain_seconds"):
        raise InputError(
            f"[network] gain_seconds = {network.gain_seconds:g}: it is the correlation time of the "
            "gains that gain_db draws, and there are none; set gain_db, or leave it out"
        )
    if not any(method.sparse for method in methods) and _said(experiment.lora, "upload_density"):
        raise InputError(
            f"[lora] upload_density = {experiment.lora.upload_density:g}: no method here "
            f"({listed}) sends a share of its values; leave it out, or add 'flasc' to methods"
        )
    limit = planner.p95_limit_seconds
    if limit is not None and all(method.asynchronous for method in methods):
        raise InputError(
            f"[planner] p95_limit_seconds = {limit:g}: no method here ({listed}) has rounds that "
            "could be too long, or beats; leave it out, or add 'adaptive' to methods"
        )


def _said(section: Section, key: str) -> bool:
    """Say whether somebody chose a key.

    Nobody did where every key of the section that has a default stands: so a run writes it, and
    such a file may be run again.
    """
    known, fields = section.model_fields_set, type(section).model_fields
    written = all(name in known for name, field in fields.items() if field.default is not None
                  and not field.is_required())  # fmt: skip
    return key in known and not written
