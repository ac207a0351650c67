import re

import pytest

from fedpace.core.errors import InputError
from fedpace.core.target import Target


def test_accuracy_is_reached_from_below_and_loss_from_above():
    accuracy, loss = Target.parse("accuracy>=0.85"), Target.parse(" loss <= 1.2 ")
    assert [accuracy.reached({"accuracy": a}) for a in (0.84, 0.85, 0.9)] == [False, True, True]
    assert [loss.reached({"loss": v}) for v in (1.3, 1.2, 0.1)] == [False, True, True]


def test_a_number_that_is_none_reaches_nothing():
    for text in ("accuracy>=0.1", "loss<=9"):
        target = Target.parse(text)
        assert not target.reached({target.metric: float("nan")})


@pytest.mark.parametrize("text", ["accuracy>=0.85", "loss<=1.2", "loss<=0.0625"])
def test_a_target_reads_back_what_it_writes(text):
    assert str(Target.parse(text)) == text


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("accuracy", "write 'accuracy>=0.85'"),
        ("f1>=0.5", "write 'accuracy>=0.85'"),
        ("accuracy<=0.5", "accuracy is to be >="),
        ("loss>=0.5", "loss is to be <="),
        ("accuracy>=85%", "'85%' is no number"),
        ("accuracy>=85", "accuracy is 85; it is a share"),
        ("accuracy>=nan", "is a share"),
        ("loss<=0", "above 0"),
        ("loss<=inf", "finite"),
    ],
)
def test_what_is_wrong_with_a_target_is_said_in_one_line(text, part):
    with pytest.raises(InputError) as caught:
        Target.parse(text)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_target_on_a_metric_that_is_not_measured_is_refused():
    with pytest.raises(InputError, match="the evaluation has only loss"):
        Target.parse("accuracy>=0.5").reached({"loss": 1.0})


@pytest.mark.parametrize(
    ("text", "found", "said"),
    [
        ("accuracy>=0.01", {"loss": 2.0, "accuracy": 1 / 3}, "has accuracy 0.3333 before training"),
        ("accuracy>=0.25", {"loss": 2.0, "accuracy": 0.25}, "; raise the target"),
        ("loss<=2", {"loss": 1.5}, "has loss 1.5 before training"),
        ("loss<=2", {"loss": 2.0}, "; lower the target"),
    ],
)
def test_a_target_that_holds_before_training_is_refused(text, found, said):
    with pytest.raises(InputError, match=re.escape(said)) as caught:
        Target.parse(text).refuse_held(found, "[training] target")
    assert str(caught.value).startswith(f"[training] target = '{Target.parse(text)}': the model")


@pytest.mark.parametrize("found", [{"loss": 2.5}, {"loss": float("nan")}])
def test_a_target_that_does_not_hold_before_training_stays(found):
    Target.parse("loss<=2").refuse_held(found, "here")
