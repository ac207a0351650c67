"""A table checked against a record: the first mistake is told in one line."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self, TypeVar

from pydantic import BaseModel, ValidationError

from fedpace.core.errors import InputError
from fedpace.core.text_files import shortened
from fedpace.experiment.toml_files import refuse_broken_text

__all__ = ["OneLine", "parse"]

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
    name = location[0] if len(location) == 1 else f"[{location[0]}] " + ".".join(location[1:]) \
        if location else ""  # fmt: skip
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
    message = first["msg"][0].lower() + first["msg"][1:]
    if first["type"].startswith(("greater_than", "less_than")):
        (bound,) = first["ctx"].values()  # a float, of which pydantic says thirty digits
        if isinstance(bound, float):
            message = f"{message.rpartition(' ')[0]} {bound:g}"
    return f"{name} = {shortened(first['input'])}: {message}"
