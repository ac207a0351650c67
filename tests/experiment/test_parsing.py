"""Where in a file a mistake is told to be, however its tables lie in each other."""

from typing import Annotated

import pytest
from pydantic import BaseModel, ConfigDict, Field, model_validator

from fedpace.bench.suite import Suite
from fedpace.core.errors import InputError
from fedpace.experiment.parsing import parse


class Leaf(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    rate: int
    size: float = 1.0

    @model_validator(mode="after")
    def _small(self) -> "Leaf":
        if self.rate > 100:
            raise ValueError(f"rate is {self.rate}; give 100 at most")
        return self


class Root(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    seeds: int = 0
    one: Leaf = Leaf(rate=1)
    optional: Leaf | None = None
    noted: Annotated[Leaf, Field(description="x")] | None = None
    some: list[Leaf] = []
    few: Annotated[list[Leaf], Field(min_length=1)] | None = None
    named: dict[str, Leaf] = {}
    grids: dict[str, list[Leaf]] = {}
    either: Leaf | str | None = None


def told(model, table):
    with pytest.raises(InputError) as caught:
        parse(model, table, "f.toml")
    text = str(caught.value)
    assert text.startswith("f.toml: ") and "\n" not in text and len(text) < 400
    return text.removeprefix("f.toml: ")


def nestings(inner):
    """A table in every place that a table can have, and the head of it."""
    return [
        ({"one": inner}, "[one]"),
        ({"optional": inner}, "[optional]"),
        ({"noted": inner}, "[noted]"),
        ({"some": [{"rate": 1}, inner]}, "[[some]] item 2"),
        ({"few": [inner]}, "[[few]] item 1"),
        ({"named": {"over": inner}}, "[named.over]"),
        ({"named": {"str": inner}}, "[named.str]"),
        ({"named": {"3": inner}}, "[named.3]"),
        ({"grids": {"adam": [inner]}}, "[[grids.adam]] item 1"),
        ({"either": inner}, "[either]"),
    ]


@pytest.mark.parametrize(("table", "head"), nestings({"rate": 1, "sise": 2.0}))
def test_an_unknown_key_is_named_in_every_table(table, head):
    said = f"unknown key {head} sise; known are rate, size; is 'size' meant?"
    assert told(Root, table) == said


@pytest.mark.parametrize(("table", "head"), nestings({"rat": 1, "x": 2}))
def test_a_missing_key_is_told_with_the_unknown_ones_beside_it(table, head):
    said = told(Root, table)
    assert said == (
        f"{head} rate is missing; unknown keys {head} rat, {head} x; known are rate, size; "
        "is 'rate' meant?"
    )


@pytest.mark.parametrize(("table", "head"), nestings({"rate": 101}))
def test_what_a_table_says_of_itself_is_told_with_its_head(table, head):
    assert told(Root, table) == f"{head}: rate is 101; give 100 at most"


@pytest.mark.parametrize(("table", "head"), nestings({"rate": "x"}))
def test_a_wrong_value_is_told_with_its_table(table, head):
    assert told(Root, table) == f"{head} rate = 'x': it takes a whole number"


def test_a_missing_key_alone_shows_no_table():
    assert told(Leaf, {"size": 1.0}) == "rate is missing; give it"


def test_a_table_of_a_very_long_name_is_cut():
    assert "...: rate is 101" in told(Root, {"named": {"x" * 9999: {"rate": 101}}})


def test_a_suite_names_what_is_misspelt():
    method = {"kind": "ours", "rates": "adam"}
    table = {
        "seeds": [0], "budget": {"client_updates": 1, "rounds": 1}, "experiment": {},
        "tasks": {"t": {"target": "loss<=1", "experiment": {}}}, "networks": {"n": {}},
        "settings": [{"task": "t", "network": "n"}], "rates": {"adam": [{}]},
        "methods": {"over": method},
    }  # fmt: skip
    parse(Suite, table, "f.toml")
    settings = [{"task": "t", "network": "n", "secnds": 3}]
    assert told(Suite, {**table, "settings": settings}).startswith(
        "unknown key [[settings]] item 1 secnds; known are task, network"
    )
    assert told(Suite, {**table, "methods": {"over": {**method, "ratess": "adam"}}}).startswith(
        "unknown key [methods.over] ratess; known are method, kind, rates"
    )
    misspelt = {("sedes" if key == "seeds" else key): value for key, value in table.items()}
    said = told(Suite, misspelt)
    assert said.startswith("seeds is missing; unknown key sedes; ")
    assert said.endswith("; is 'seeds' meant?")
