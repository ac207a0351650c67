"""The house in order: sizes of modules, names of tests, docstrings, stated imports, privacy."""

import ast
import re
import statistics
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "fedpace"
MODULES = sorted(SOURCE.rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))


def of_house(module):
    return str(module.relative_to(SOURCE))


def docstrings(module):
    """Docstrings, and the strings that stand behind constants and fields."""
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield node.lineno, str(node.value.value)


def imports(module):
    """Full names of what a module imports, wherever in it."""
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def test_no_module_is_above_400_lines_and_half_are_at_most_120():
    lines = {of_house(m): m.read_text().count("\n") for m in MODULES}
    assert [name for name, count in lines.items() if count > 400] == []
    assert statistics.median(lines.values()) <= 120


@pytest.mark.parametrize("room", ["planning", "estimation"])
def test_each_module_has_its_test_file(room):
    modules = [m for m in (SOURCE / room).rglob("*.py") if m.name != "__init__.py"]
    files = {t.relative_to(ROOT / "tests") for t in TESTS}
    missing = [
        of_house(m)
        for m in modules
        if m.relative_to(SOURCE).with_name(f"test_{m.name}") not in files
    ]
    assert len(modules) > 2 and missing == []


def test_no_docstring_begins_with_of():
    found = [
        f"{of_house(m)}:{line}"
        for m in MODULES
        for line, text in docstrings(m)
        if text.startswith("Of ")
    ]
    assert found == []


def stated(room):
    """Names in backticks, and libraries, of the sentence "Imports ..." of a room's docstring."""
    text = ast.get_docstring(ast.parse((room / "__init__.py").read_text())) or ""
    sentence = re.search(r"\bImports (.*?)\.(?=\s|$)", text, re.S)
    return None if sentence is None else sentence[1]


STATED = [m.parent for m in MODULES if m.name == "__init__.py" and stated(m.parent)]


@pytest.mark.parametrize("room", STATED, ids=of_house)
def test_a_room_imports_no_room_that_its_docstring_does_not_name(room):
    sentence = stated(room)
    below = "what stands below" in sentence
    own = "fedpace." + of_house(room).replace("/", ".")
    named = [own] + [
        f"fedpace.{name.removeprefix('fedpace.')}" for name in re.findall(r"`([\w.]+)`", sentence)
    ]
    if "nothing but NumPy" in sentence:
        assert named == [own]
    for module in room.rglob("*.py"):
        for name in imports(module):
            if below or not name.startswith("fedpace"):
                continue
            assert name == "fedpace" or any(
                name == known or name.startswith(known + ".") for known in named
            ), f"{of_house(module)} imports {name}; the room says: Imports {sentence}"


def test_rooms_state_their_imports():
    assert {"core", "wireless", "planning", "estimation", "federation"} <= {
        of_house(room) for room in STATED
    }


def test_no_test_reaches_into_an_engine():
    private = re.compile(r"\bengine\._[a-z]")
    found = [
        f"{test.relative_to(ROOT)}:{number}"
        for test in TESTS
        for number, line in enumerate(test.read_text().splitlines(), 1)
        if private.search(line) and test != Path(__file__)
    ]
    assert found == []


@pytest.mark.parametrize("room", ["planning", "estimation"])
def test_each_constant_has_its_sentence_beside_it(room):
    found = []
    for module in (SOURCE / room).rglob("*.py"):
        body = ast.parse(module.read_text()).body
        for node, after in zip(body, [*body[1:], None], strict=True):
            if not isinstance(node, ast.Assign | ast.AnnAssign) or "__all__" in ast.unparse(node):
                continue
            said = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            if not said:
                found.append(f"{of_house(module)}:{node.lineno}")
    assert found == []
