import csv
import gzip
import json

import pytest

from fedpace.core.errors import InputError
from fedpace.data.files import format_of, read_rows

ROWS = [
    {"text": 'a "quoted", comma', "label": "x"},
    {"text": "two\nlines", "label": "y"},
    {"text": "Grüße", "label": "x"},
]


def written(path, content):
    data = content if isinstance(content, bytes) else content.encode()
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
    return path


def as_csv(tmp_path, name="rows.csv"):
    with (tmp_path / "plain.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["text", "label"])
        writer.writeheader()
        writer.writerows(ROWS)
    return written(tmp_path / name, (tmp_path / "plain.csv").read_bytes())


def as_jsonl(tmp_path, name="rows.jsonl"):
    return written(tmp_path / name, "\n".join(map(json.dumps, ROWS)) + "\n\n")


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("make, name", [(as_csv, "rows.csv"), (as_jsonl, "rows.jsonl")])
def test_every_format_gives_back_the_rows_written(tmp_path, make, name, suffix):
    assert [row for _, row in read_rows(make(tmp_path, name + suffix))] == ROWS


@pytest.mark.torch  # pyarrow comes with the lora extra
def test_parquet_gives_back_the_rows_written(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "rows.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    assert list(read_rows(path)) == [(f"{path}: row {i}", row) for i, row in enumerate(ROWS, 1)]
    path.write_bytes(b"not parquet at all")
    with pytest.raises(InputError, match=r"rows\.parquet: not Parquet"):
        list(read_rows(path))


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path):
    path = written(tmp_path / "bom.csv", b"\xef\xbb\xbftext,label\nhello,1\n")
    assert list(read_rows(path)) == [(f"{path}:2", {"text": "hello", "label": "1"})]


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize(
    ("name", "content"),
    [("a.jsonl", '{"text": "hello"}\n'), ("a.csv", "text\nhello\n"), ("a.txt", "hello\n")],
)
def test_a_byte_order_mark_is_no_part_of_any_format(tmp_path, name, content, suffix):
    path = written(tmp_path / (name + suffix), b"\xef\xbb\xbf" + content.encode())
    assert [row for _, row in read_rows(path)] == [{"text": "hello"}]


def test_a_long_document_is_read_from_every_format(tmp_path):
    text = "word " * 60_000
    for name, content in [
        ("a.jsonl", json.dumps({"text": text})), ("a.csv", f'text\n"{text}"\n'),
    ]:  # fmt: skip
        assert [row["text"] for _, row in read_rows(written(tmp_path / name, content))] == [text]


def test_a_line_separator_inside_a_json_string_does_not_end_the_line(tmp_path):
    path = written(tmp_path / "a.jsonl", json.dumps({"text": "a\u2028b"}, ensure_ascii=False))
    assert list(read_rows(path)) == [(f"{path}:1", {"text": "a\u2028b"})]


def test_plain_text_is_cut_at_blank_lines_and_document_ends(tmp_path):
    path = written(tmp_path / "t.txt", "\none\ntwo  \n\n \nthree\n<|endoftext|>\n four\n")
    found = [(place.rpartition(":")[2], row["text"]) for place, row in read_rows(path)]
    assert found == [("2", "one\ntwo"), ("6", "three"), ("8", " four")]


@pytest.mark.torch  # pyarrow comes with the lora extra
def test_parquet_that_unpacks_to_much_more_than_its_size_is_refused(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "rows.parquet"
    column = pyarrow.array(["x" * 10_000] * 4_000)
    parquet.write_table(pyarrow.table({"text": column}), path, compression="zstd")
    assert path.stat().st_size < 1e6
    with pytest.raises(InputError, match=r"rows\.parquet: row \d+: unpacks to more than 100"):
        list(read_rows(path))


@pytest.mark.parametrize(
    "name, content, said",
    [
        (
            "a.jsonl",
            '{"text": "a"}\n{"text": "b"\n',
            r"a\.jsonl:2: not JSON .* one JSON object a l",
        ),
        (
            "a.jsonl",
            '{"text": "a"}\n\n["b"]\n',
            r"a\.jsonl:3: a JSON list; every line must be an o",
        ),
        ("a.jsonl", b'{"text": "a"}\n{"text": "\xe9"}\n', r"a\.jsonl:2: not UTF-8 \(byte 0xe9"),
        ("a.csv", b"text,label\nr\xe9sum\xe9,1\n", r"a\.csv:2: not UTF-8 .*save the file as UTF-8"),
        ("a.txt.gz", b"ok\n\nr\xe9\n", r"a\.txt\.gz:3: not UTF-8"),
        ("a.csv", "text,label\na,b,1\n", r"a\.csv:2: 3 values under 2 columns \(text, label\)"),
        ("a.csv", 'text,label\n"a,1\n', r"a\.csv:2: not CSV"),
        ("a.csv", "text,text\na,1\n", r"a\.csv:1: column 'text' stands twice"),
        (
            "a.jsonl",
            gzip.compress(b"{}", mtime=0),
            r"a\.jsonl: by its first bytes this is gzip, not JSO",
        ),
        ("a.csv", gzip.compress(b"{}", mtime=0), r"a\.csv: .* gzip, not CSV; add \.gz to its name"),
        ("a.csv", b"PAR1....PAR1", r"a\.csv: .* Parquet, not CSV; name it \.parquet"),
        ("a.csv.gz", b"PAR1....PAR1", r"a\.csv\.gz: .* Parquet, not CSV"),
        ("a.txt", b"PK\x03\x04 xl/", r"a\.txt: .* a ZIP archive or an Excel workbook"),
        ("a.csv", "text\nhello\n".encode("utf-16"), r"a\.csv: .* UTF-16 text, .*as UTF-8"),
        ("a.csv", "text\nhello\n".encode("utf-16-be"), r"a\.csv: .* UTF-16 text, .*as UTF-8"),
        ("a.jsonl", '{"text": "a"}'.encode("utf-32"), r"a\.jsonl: .* UTF-32 text"),
        ("a.jsonl", "version https://git-lfs.github.com/spec/v1\n", r": .* Git LFS pointer.* pull"),
        ("a.parquet", "text,label\na,1\n", r"a\.parquet: not Parquet .*it is text: name it"),
        ("a.parquet", gzip.compress(b"{}", mtime=0), r"a\.parquet: not Parquet .*it is gzip"),
        ("a.txt", '{"text": "a"}\n', r"a\.txt:1: JSON in a file of plain text; name it \.jsonl"),
        ("a.jsonl", '{"text": "a", "text": "b"}', r"a\.jsonl:1: .*key 'text' stands twice"),
        ("a.jsonl", '{"a": ' + "9" * 5000 + "}", r"jsonl:1: .*an integer of thousands of digits"),
        ("a.jsonl", "[" * 100_000, r"a\.jsonl:1: .*nested too deeply"),
        ("a.jsonl", "x" * (2**24 + 2), r"a\.jsonl:1: a line of more than 16 MiB"),
        (
            "a.csv",
            '"' + ("x" * 1023 + "\n") * 2**15,
            r"a\.csv:\d+: not CSV \(field larger than field limit",
        ),
        (
            "a.jsonl.gz",
            (b" " * 1023 + b"\n") * (2**14 + 9),
            r"a\.jsonl\.gz:\d+: unpacks to more than 100 times",
        ),
        ("a.xlsx", "whatever", r"a\.xlsx: not a known data format; known are \.jsonl"),
        ("a.parquet.gz", "whatever", r"a\.parquet\.gz: not a known data format"),
    ],
)
def test_what_is_wrong_is_said_with_file_line_and_remedy(tmp_path, name, content, said):
    with pytest.raises(InputError, match=said) as caught:
        list(read_rows(written(tmp_path / name, content)))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_a_cut_or_false_gzip_file_is_an_input_error(tmp_path):
    whole = gzip.compress(b'{"text": "a"}\n' * 1000)
    for name, data in [("cut", whole[:-20]), ("false", b'{"text": "a"}\n')]:
        (tmp_path / f"{name}.jsonl.gz").write_bytes(data)
        with pytest.raises(InputError, match=rf"{name}\.jsonl\.gz: cannot be read"):
            list(read_rows(tmp_path / f"{name}.jsonl.gz"))


def test_the_suffix_says_the_format(tmp_path):
    names = ["A.JSONL", "a.csv.gz", "a.b.ndjson", "a.txt", "a.parquet", "a.md", "a.gz", "csv"]
    found = [format_of(tmp_path / name) for name in names]
    assert found == ["jsonl", "csv", "jsonl", "text", "parquet", None, None, None]
