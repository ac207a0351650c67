"""A table checked against a record: the first mistake is told in one line."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from fedpace.core.errors import InputError
from fedpace.core.text_files import shortened
from fedpace.experiment.toml_files import refuse_broken_text

__all__ = ["OneLine", "parse"]

_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "finite_number": "a finite number",
    "string": "a text in quotes",
    "string_too_short": "a text that is not empty",
    "too_short": "at least one",
    "bool": "true or false",
    "list": 'a list, as in ["a", "b"]',
    "model": "a table of keys",
    "dict": "a table of keys",
}
"""What a key takes, by pydantic's name for what was wrong, or by the first word of it."""
_LIMITS = {
    "greater_than": "more than {}",
    "greater_than_equal": "{} or more",
    "less_than": "less than {}",
    "less_than_equal": "{} at most",
}

Model = TypeVar("Model", bound=BaseModel)
_REFUSED = {
    "r": "it is called rank here",
    "lora_alpha": "it is called alpha here",
    "lora_dropout": "it is called dropout here",
    "use_dora": "DoRA's magnitudes belong to no rank component, so they cannot be sketched",
    "rank_pattern": "one index set must fit all modules, so they have one rank",
    "alpha_pattern": "the factor of B A is one for all modules",
    "bias": "biases belong to no rank component; [lora] modules_to_save trains modules whole",
    "lora_bias": "a bias of B belongs to no rank component",
    "target_parameters": "PEFT adapts parameters without a layer, which has no A and B to sketch",
    "layers_to_transform": "a regular expression in target_modules names the layers",
    "exclude_modules": "a regular expression in target_modules says it",
}
"""What people know from PEFT's LoraConfig and [lora] does not take, and why."""


class OneLine(BaseModel):
    """An experiment whose first mistake is told in one line, also where Python makes it."""

    made_by: ClassVar[str] = "fedpace.load_experiment(path)"
    """Named where something else is given in its place."""

    def __init__(self, **sections: Any) -> None:
        try:
            super().__init__(**sections)
        except ValidationError as error:
            raise InputError(_one_line(type(self), error)) from None

    def checked(self) -> Self:
        """Return the same, or say what is wrong: `model_copy(update=...)` checks nothing.

        Raises:
            InputError: names the key, its value and what it takes.
        """
        return parse(type(self), self.model_dump(warnings=False), "experiment")


def parse(model: type[Model], table: Mapping[str, Any], where: str) -> Model:
    """Check a table against a record; the first mistake is told in one line."""
    refuse_broken_text(dict(table), where)
    try:
        return model.model_validate(dict(table))
    except ValidationError as error:
        raise InputError(f"{where}: {_one_line(model, error)}") from None


def _one_line(model: type[BaseModel], error: ValidationError) -> str:
    """Say the first mistake: key, value, and what the key takes."""
    first = error.errors()[0]
    location = [
        str(part)
        for part in first["loc"]
        if not (part in ("str", "bool") or str(part).startswith(("list[", "lit")))
    ]
    name = _key(model, location)
    if first["type"] == "extra_forbidden":
        if location[0] == "lora" and (reason := _REFUSED.get(location[-1])):
            return f"[lora] {location[-1]} is refused: {reason}"
        section: Any = model
        for part in location[:-1]:
            section = section.model_fields[part].annotation
        name = name if name.isprintable() and len(name) < 100 else shortened(name)
        return f"unknown key {name}; known are {', '.join(section.model_fields)}"
    if first["type"] == "value_error":
        return str(first["ctx"]["error"])
    return f"{name} = {shortened(first['input'])}: {_told(first)}"


def _key(model: type[BaseModel], location: Sequence[str]) -> str:
    """Name a key as the file has it: its section in brackets, items of a list by their place."""
    name = "".join(f" item {int(p) + 1}" if p.isdigit() else f".{p}" for p in location).lstrip(".")
    field = model.model_fields.get(location[0]) if location else None
    kind = None if field is None else field.annotation
    if len(location) > 1 and isinstance(kind, type) and issubclass(kind, BaseModel):
        return name.replace(f"{location[0]}.", f"[{location[0]}] ", 1)
    return name


def _told(mistake: ErrorDetails) -> str:
    """Say what a key takes, in words of people who do not know pydantic."""
    kind, about = mistake["type"], mistake.get("ctx", {})
    if kind in _LIMITS:
        (bound,) = about.values()  # a float, of which pydantic says thirty digits
        limit = f"{bound:g}" if isinstance(bound, float) else bound
        return f"it takes {_LIMITS[kind].format(limit)}"
    if kind == "literal_error":
        return f"it takes {about['expected']}"
    takes = _KINDS.get(kind) or _KINDS.get(kind.partition("_")[0])
    return mistake["msg"] if takes is None else f"it takes {takes}"
