import pytest

from fedpace.reporting.units import bits_text, ratio_text, seconds_text, target_text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0123, "0.0123 s"), (59.94, "59.9 s"), (59.96, "1 min 00 s"), (750, "12 min 30 s"),
        (3599.7, "1 h 00 min"), (3900, "1 h 05 min"), (86399, "1 d 0 h"), (93600, "1 d 2 h"),
        (None, "–"),
    ],
)  # fmt: skip
def test_durations_are_told_in_two_units_and_carry(seconds, text):
    assert seconds_text(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (999.6, "1.00 kB"), (14.23e6, "14.2 MB"), (999.7e6, "1.00 GB"),
     (123e6, "123 MB")],
)  # fmt: skip
def test_sizes_are_told_in_bytes_with_three_digits(size, text):
    assert bits_text(8 * size) == text


def test_ratios_near_one_keep_their_second_decimal():
    assert [ratio_text(r) for r in (1.04, 1.9, 12.3, 0.53, None)] == [
        "1.04×", "1.9×", "12×", "0.53×", "–",
    ]  # fmt: skip


def test_a_target_is_not_broken_over_lines():
    assert target_text("accuracy>=0.85").split() == ["accuracy", "≥", "0.85"]
    assert " " not in target_text("loss<=1.2")
