import pytest

from fedpace.core.record import RoundRecord
from fedpace.core.target import Target
from fedpace.reporting.headline import headline
from fedpace.reporting.metrics import speedups

TARGET = Target("accuracy", 0.6)


def said(target=TARGET, accuracy=0.55, **seconds):
    """The headline of methods that reached the target after so many seconds, or not (None)."""
    methods = {
        name: {"time_to_target_seconds": s, "clock_seconds": s or 2400.0,
               "final_accuracy": accuracy, "final_loss": 1.0}
        for name, s in seconds.items()
    }  # fmt: skip
    records = {
        name: [RoundRecord(name, 0, s or 2400.0, 1.0, (), 0, 0, None, 0.0, 0.0,
                           {"accuracy": accuracy, "loss": 1.0})]
        for name, s in seconds.items()
    }  # fmt: skip
    return headline({"methods": methods, "speedup": speedups(seconds)}, target, records)


@pytest.mark.parametrize(
    ("seconds", "sentence"),
    [
        ({"ours": 750.0}, "ours reached accuracy 0.6 in 12 min 30 s."),
        (
            {"ours": 750.0, "uniform": 1425.0},
            "ours reached accuracy 0.6 in 12 min 30 s, 1.9× faster than uniform (23 min 45 s).",
        ),
        (
            {"ours": 1425.0, "uniform": 750.0},
            "ours reached accuracy 0.6 in 23 min 45 s, 1.9× slower than uniform (12 min 30 s).",
        ),
        (
            {"ours": 750.0, "uniform": 751.0},
            "ours reached accuracy 0.6 in 12 min 30 s, as fast as uniform (12 min 31 s).",
        ),
        (
            {"ours": 750.0, "uniform": 1425.0, "oort": 900.0, "full": None},
            "ours reached accuracy 0.6 in 12 min 30 s, 1.9× faster than uniform (23 min 45 s) and "
            "1.2× faster than oort (15 min 00 s). full did not reach it: its best was 0.55, in "
            "40 min 00 s.",
        ),
        (
            {"ours": None, "uniform": 750.0, "full": None},
            "ours did not reach accuracy 0.6: its best was 0.55, in 40 min 00 s. It was reached by "
            "uniform in 12 min 30 s. full did not reach it: its best was 0.55, in 40 min 00 s.",
        ),
        (
            {"ours": None},
            "ours did not reach accuracy 0.6: its best was 0.55, in 40 min 00 s.",
        ),
        (
            {"ours": None, "uniform": None},
            "No method reached accuracy 0.6. ours: its best was 0.55, in 40 min 00 s. "
            "uniform: its best was 0.55, in 40 min 00 s.",
        ),
    ],
)
def test_the_headline_tells_good_and_bad_alike(seconds, sentence):
    assert said(**seconds) == sentence


def test_without_a_target_the_headline_claims_no_winner():
    assert said(None, ours=None, uniform=None) == (
        "No target was set; ours ended at accuracy 0.55 in 40 min 00 s and "
        "uniform ended at accuracy 0.55 in 40 min 00 s."
    )


def test_a_method_that_diverged_has_no_best_value():
    assert "never evaluated to a number" in said(accuracy=float("nan"), ours=None)
