"""Bad content at every door ends in one line; `benchmarks/fuzz_doors.py` tries far more of it."""

from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz.doors import DOORS, HangError, knock, limited
from fuzz.heavy_doors import HEAVY, prepare

UNHURRIED = settings(
    deadline=None,
    derandomize=True,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.mark.parametrize("name", DOORS)
@given(number=st.integers(0, 2**60))
@UNHURRIED
def test_whatever_comes_to_a_door_is_taken_whole_or_refused_in_a_line(tmp_path, name, number):
    knock(DOORS[name], Random(number), tmp_path)


@pytest.mark.parametrize("name", DOORS)
def test_a_door_takes_some_and_refuses_some(tmp_path, name):
    """Else the cases above would say nothing."""
    answers = {knock(DOORS[name], Random(f"{name} {n}"), tmp_path) for n in range(100)}
    assert answers == {"taken", "refused"}


def test_a_door_that_never_ends_or_says_too_much_is_found(tmp_path, monkeypatch):
    def endless(random, folder):
        while True:
            pass

    def lengthy(random, folder):
        from fedpace.core.errors import InputError

        raise InputError("one line\nand another")

    monkeypatch.setattr("fuzz.doors.SECONDS", 0.1)
    with pytest.raises(HangError):
        knock(endless, Random(0), tmp_path)
    with pytest.raises(AssertionError, match="several lines"):
        knock(lengthy, Random(0), tmp_path)
    with limited():
        pass


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    pytest.importorskip("peft")
    prepare(tmp_path_factory.mktemp("given"))


@pytest.mark.slow
@pytest.mark.torch
@pytest.mark.parametrize("name", HEAVY)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numbers at the edge, in planning
def test_a_model_a_run_or_a_plan_that_was_tampered_with_is_refused_in_a_line(
    tmp_path, prepared, name
):
    answers = {knock(HEAVY[name], Random(f"{name} {n}"), tmp_path) for n in range(150)}
    assert answers == {"taken", "refused"}


@pytest.mark.slow
@pytest.mark.parametrize("name", DOORS)
def test_the_doors_hold_for_longer(tmp_path, name):
    for number in range(1000, 3000):
        knock(DOORS[name], Random(f"{name} {number}"), tmp_path)
