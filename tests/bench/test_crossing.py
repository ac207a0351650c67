"""When a curve crosses a target, against curves worked out by hand."""

import math

import pytest

from fedpace.bench.crossing import best_so_far, measured, seconds_to
from fedpace.core.target import Target


def at(text):
    return Target.parse(text)


CURVE = [(10.0, 0.4), (20.0, 0.8), (30.0, 0.6), (50.0, 0.9), (60.0, 0.5)]
# Neighbours averaged: 0.4, 0.6, 0.7, 0.75, 0.7; the best so far: 0.4, 0.6, 0.7, 0.75, 0.75.


@pytest.mark.parametrize(
    ("goal", "seconds"),
    [
        ("accuracy>=0.3", 10.0),  # before the first evaluation nothing is known
        ("accuracy>=0.4", 10.0),
        ("accuracy>=0.5", 15.0),
        ("accuracy>=0.6", 20.0),
        ("accuracy>=0.65", 25.0),
        ("accuracy>=0.725", 40.0),
        ("accuracy>=0.75", 50.0),
        ("accuracy>=0.8", None),  # a single evaluation was there
    ],
)
def test_accuracy_is_smoothed_and_read_off_between_evaluations(goal, seconds):
    found = seconds_to(CURVE, at(goal))
    assert found == (None if seconds is None else pytest.approx(seconds))


def test_a_loss_falls():
    curve = [(1.0, 4.0), (3.0, 3.0), (4.0, 3.5), (6.0, 2.5)]  # 4, 3.5, 3.25, 3
    assert seconds_to(curve, at("loss<=3.75")) == pytest.approx(2.0)
    assert seconds_to(curve, at("loss<=3.125")) == pytest.approx(5.0)
    assert seconds_to(curve, at("loss<=2.9")) is None


def test_a_dip_costs_nothing_once_it_was_better():
    curve = [(1.0, 0.6), (2.0, 0.6), (3.0, 0.2), (4.0, 0.2), (5.0, 0.8), (6.0, 0.8)]
    assert [value for _, value in best_so_far(curve, "accuracy")] == pytest.approx(
        [0.6, 0.6, 0.6, 0.6, 0.6, 0.8]
    )
    assert seconds_to(curve, at("accuracy>=0.7")) == pytest.approx(5.5)


def test_an_evaluation_of_a_diverged_model_says_nothing():
    assert math.isnan(measured({"accuracy": 0.9, "loss": math.nan}, "accuracy"))
    assert measured({"accuracy": 0.9, "loss": 0.1}, "accuracy") == 0.9
    curve = [(1.0, math.nan), (2.0, 0.4), (3.0, 0.6), (4.0, math.nan), (5.0, 0.9), (6.0, 0.7)]
    # Means: -, -, 0.5, -, -, 0.8; so the curve begins at 3 and stays until 5.
    assert best_so_far(curve, "accuracy")[0] == (3.0, 0.5)
    assert seconds_to(curve, at("accuracy>=0.65")) == pytest.approx(5.5)
    assert seconds_to([(1.0, math.nan)], at("accuracy>=0.1")) is None


def test_a_mean_that_equals_the_target_reaches_it():
    low, high, goal = 0.1, 0.7, 0.4
    assert (low + high) / 2 < goal  # in binary
    assert seconds_to([(1.0, low), (2.0, high)], at(f"accuracy>={goal}")) == pytest.approx(2.0)


def test_a_curve_may_be_read_without_averaging():
    assert seconds_to(CURVE, at("accuracy>=0.8"), averaged=False) == pytest.approx(20.0)
    assert seconds_to(CURVE, at("accuracy>=0.85"), averaged=False) == pytest.approx(40.0)
