import pytest

from fedpace.core.errors import InputError
from fedpace.core.text_files import read_text, recognised, shortened


def test_a_byte_order_mark_is_no_part_of_a_text(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text("seed = 1", encoding="utf-8-sig")
    assert read_text(path, "a TOML file", max_bytes=100) == "seed = 1"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"caf\xe9", r"is not UTF-8 text \(line 1: .*save it as UTF-8"),
        (b"one\ntwo\ncaf\xe9", r"is not UTF-8 text \(line 3"),
        ("seed = 1".encode("utf-16"), "UTF-16 text, not a TOML file; save the file as UTF-8"),
        (b"\x1f\x8b\x08", "gzip, not a TOML file"),
        (b"x" * 101, "is longer than 100 bytes"),
    ],
)
def test_what_is_no_text_is_named(tmp_path, content, said):
    path = tmp_path / "a.toml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=said):
        read_text(path, "a TOML file", max_bytes=100)


def test_what_is_not_there_or_no_file_or_no_path_is_said(tmp_path):
    for name, said in (("none", "does not exist; give the path of a TOML"), ("", "is a folder"),
                       ("a\0b", "cannot be read"), ("a" * 300, "cannot be read")):  # fmt: skip
        with pytest.raises(InputError, match=said):
            read_text(tmp_path / name, "a TOML file", max_bytes=100)


@pytest.mark.parametrize("text", ["{", "text,label", "grüße", "日本語のテキ", "a\n\n\n", "1", ""])
def test_text_is_not_taken_for_something_else(text):
    assert recognised(text.encode()) is None


def test_values_are_shown_short_whatever_they_are():
    nested = []
    nested.append(nested)
    deep = []
    for _ in range(100_000):
        deep = [deep]
    for value in ("x" * 10**6, 10**5000, [10**5000], list(range(10**5)), nested, deep, None):
        assert len(shortened(value)) < 100
