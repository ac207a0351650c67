"""No message of this room tells a server a value, a line or a path of a client's data."""

import ast
import gzip
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fedpace.data
from fedpace.core.errors import InputError
from fedpace.data.load import load_data, load_training

MARK = "Qz7"
"""Stands in every value, key and path of the data here."""
COUNTS = {"len(values)", "len(columns)", "len(row)", "len(names)", "len(splits)", "len(paths)",
          "len(text)", "count", "number", "value.bit_length()", "MAX_CHARACTERS"}  # fmt: skip
KINDS = {"type(error).__name__", "kind!r", "known!r", "missing[0]!r", "name", "found", "FORMS",
         "expected", "found[0]", "split!r", "TURNS", "', '.join(ROLES)"}  # fmt: skip
"""Of these none comes from the data: names of ours (a split that is only evaluated on has one of
the usual words for its name), formats, and types."""


def public_parts():
    rooms = [*Path(fedpace.data.__path__[0]).glob("*.py")]
    rooms.append(Path(fedpace.data.__path__[0]).parent / "core" / "text_files.py")
    for path in rooms:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "InputError":
                for keyword in node.keywords:
                    yield path.name, keyword.value


def test_public_parts_hold_counts_and_kinds_alone():
    parts = list(public_parts())
    assert len(parts) > 25
    for where, part in parts:
        if isinstance(part, ast.JoinedStr):
            inserted = [v for v in part.values if isinstance(v, ast.FormattedValue)]
            texts = {ast.unparse(v.value) + "!r" * (v.conversion == 114) for v in inserted}
            assert texts <= COUNTS | KINDS, (where, texts)
        else:
            assert isinstance(part, ast.Constant | ast.Name), (where, ast.unparse(part))


values = st.one_of(
    st.sampled_from([f"{MARK} a", f" {MARK}", f"{MARK}\ud83d", "", f"{MARK}" * 500, None, True]),
    st.integers(),
    st.floats(),
    st.lists(st.just(MARK), max_size=2),
    st.dictionaries(st.just(MARK), st.just(MARK), max_size=1),
)
columns = st.sampled_from(
    ["messages", "text", "text", "label", "label", "text_pair", "prompt", "response", "group",
     "Text", "labels", f"{MARK} column", "sentence", f"text{MARK}"]
)  # fmt: skip
rows = st.dictionaries(columns, values, max_size=5)
line = st.one_of(
    rows.map(json.dumps),
    st.sampled_from([f"{MARK}", f'{{"{MARK}": 1, "{MARK}": 2}}', f'["{MARK}"]', f'"{MARK}"']),
).map(str.encode) | st.just(MARK.encode() + b"\xff")
name = st.sampled_from(["a.jsonl", "a.csv", "a.txt", "a.jsonl.gz", "a.parquet", "a.json", "train"])


@given(name, st.lists(line, max_size=6), st.sampled_from([None, ["a", "b"], ["0", "1"]]))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_public_of_an_error_holds_nothing_of_the_data(tmp_path, name, lines, labels):
    path = tmp_path / MARK / name
    path.parent.mkdir(exist_ok=True)
    content = b"\n".join(lines)
    path.write_bytes(gzip.compress(content, mtime=0) if name.endswith("gz") and lines else content)
    for load in (lambda: load_training(str(path), labels), lambda: load_data(str(path), seed=0)):
        try:
            load()
        except InputError as error:
            assert MARK not in error.public and str(tmp_path) not in error.public
            assert error.public != str(error) or MARK not in str(error)


@pytest.mark.parametrize("files", [{}, {"a.json": "{}"}, {"a.jsonl": "", "a.csv": ""},
                                   {"a.jsonl": "", "b.jsonl": ""}])  # fmt: skip
def test_what_is_public_of_a_folder_is_no_name_in_it(tmp_path, files):
    for file, content in files.items():
        (tmp_path / f"{MARK}-{file}").write_text(content)
    for name in (tmp_path, tmp_path / MARK / "nowhere"):
        with pytest.raises(InputError) as caught:
            load_training(str(name), ["a"])
        assert MARK not in caught.value.public and "/" not in caught.value.public
