"""A table checked against a record: the first mistake is told in one line."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Self, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from fedpace.core.errors import InputError
from fedpace.core.text_files import listed, shortened
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
    """Say the first mistake: key, value, and what the key takes.

    A key that is missing is told with the unknown ones beside it: one is the other misspelt.
    """
    mistakes = error.errors()
    first = mistakes[0]
    place = _place(model, first["loc"])
    if first["type"] == "extra_forbidden":
        path = place.path
        if path[0] == "lora" and (reason := _REFUSED.get(path[-1])):
            return f"[lora] {path[-1]} is refused: {reason}"
        return _unknown([place])
    if first["type"] == "missing":
        others = [_place(model, m["loc"]) for m in mistakes if m["type"] == "extra_forbidden"]
        beside = [each for each in others if each.table == place.table]
        return f"{place.name} is missing" + (f"; {_unknown(beside)}" if beside else "; give it")
    if first["type"] == "value_error":
        said = str(first["ctx"]["error"])
        table, where = place.head or place.table, _shown(place.head or place.name)
        return said if not where or (table and table in said) else f"{where}: {said}"
    return f"{place.name} = {shortened(first['input'])}: {_told(first)}"


@dataclass(frozen=True, slots=True)
class _Place:
    """Where in a file a mistake is."""

    path: tuple[str, ...]
    """The keys that lead there, without the names of a union's members."""
    table: str
    """The innermost table with keys of its own, as the file heads it; "" for the file's top."""
    key: str
    """What stands in that table; "" where the table itself is meant."""
    known: tuple[str, ...]
    """The keys that table may have."""
    head: str
    """The head of the table that is meant as a whole; "" where a key of one is."""

    @property
    def name(self) -> str:
        """The place as a person would look for it, cut where it is very long."""
        return _shown(f"{self.table} {self.key}".strip())


def _shown(name: str) -> str:
    return name if name.isprintable() and len(name) < 100 else shortened(name)


def _place(model: type[BaseModel], location: Sequence[int | str]) -> _Place:
    """Follow pydantic's location through optional keys, unions, lists and tables of records.

    Args:
        model: of the whole file.
        location: keys, places in lists from 0, and names of a union's members.
    """
    kind: Any = model
    path: list[int | str] = []
    head, record = 0, model
    for part in location:
        if len(members := _members(kind)) > 1:
            kind = _member(members, str(part))
            continue
        kind = members[0]
        path.append(part)
        if _is_record(kind):
            head, record = len(path) - 1, kind
            field = record.model_fields.get(str(part))
            kind = None if field is None else field.annotation
        else:
            kind = next(reversed(get_args(kind)), None)  # of what is in a list or a table
    return _Place(
        tuple(map(str, path)), _header(path[:head]), _dotted(path[head:]),
        tuple(record.model_fields), _header(path) if _is_record(_members(kind)[0]) else "",
    )  # fmt: skip


def _is_record(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _members(kind: Any) -> list[Any]:
    """What a key may hold besides nothing; pydantic names which where there are several."""
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if get_origin(kind) not in (Union, UnionType):
        return [kind]
    held = [each for each in get_args(kind) if each is not NoneType]
    return held if len(held) > 1 else _members(held[0])


def _member(members: Sequence[Any], tag: str) -> Any:
    """The member of a union that pydantic names so: a class by its name, a list as list[...].

    A class with a validator of its own is "function-after[name(), Class]".
    """
    if tag.startswith("function-"):
        tag = tag.rpartition(", ")[2].rstrip("]")
    for each in members:
        name = getattr(get_origin(each) or each, "__name__", "")
        if name and tag.partition("[")[0] == name:
            return each
    return None


def _header(path: Sequence[int | str]) -> str:
    """The head of a table as TOML writes it; one of a list of tables by its number, too."""
    if not path:
        return ""
    if isinstance(path[-1], int):
        return f"[[{_dotted(path[:-1])}]] item {path[-1] + 1}"
    return f"[{_dotted(path)}]"


def _dotted(path: Sequence[int | str]) -> str:
    """Keys with dots between; items of a list by their number."""
    return "".join(
        f" item {part + 1}" if isinstance(part, int) else f".{part}" for part in path
    ).lstrip(" .")


def _unknown(places: Sequence[_Place]) -> str:
    """Say which keys of one table are unknown, which there are, and which may be meant."""
    known = places[0].known
    names = listed([each.name for each in places]) if len(places) > 1 else places[0].name
    close = [get_close_matches(each.key, known, n=1) for each in places]
    meant = "".join(f"; is {found[0]!r} meant?" for found in close[:1] if found)
    many = "s" if len(places) > 1 else ""
    return f"unknown key{many} {names}; known are {', '.join(known)}{meant}"


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
