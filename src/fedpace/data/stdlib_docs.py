"""The embedded data set: what Python's own standard library says of itself.

Each example is one docstring of the running Python; its class is the chapter of the library
reference that documents the module (`chapters`), its group the module. Nothing is downloaded and
nothing is imported but built-in and extension modules: Python sources are read, never executed.

``python -m fedpace.data.stdlib_docs`` prints how many there are.
"""

import ast
import importlib.util
import inspect
import sys
import sysconfig
import types
import warnings
from collections import Counter
from collections.abc import Iterator
from functools import cache
from importlib.machinery import ExtensionFileLoader
from pathlib import Path

import numpy as np

from fedpace.core.errors import InputError
from fedpace.core.examples import Examples
from fedpace.data.chapters import CHAPTERS, EXTENSIONS, IMPLEMENTS
from fedpace.data.split import essence

MIN_CHARACTERS = 20
"""Shorter docstrings say too little of where they stand."""

MIN_EXAMPLES = 3000
"""Fewer mean that the library's sources are not there."""

_CHAPTER_OF = {module: name for name, modules in CHAPTERS.items() for module in modules.split()}
_CLASS_OF = {name: c for c, name in enumerate(CHAPTERS)}
_Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
_C_DOCUMENTED = (
    types.ModuleType,
    type,
    types.BuiltinFunctionType,
    types.ClassMethodDescriptorType,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
    types.MethodDescriptorType,
)


@cache
def stdlib_docs() -> Examples:
    """Return the docstrings of the running Python's standard library, classified by chapter.

    The text is the docstring alone, without the name of what it describes. Left out are
    docstrings under `MIN_CHARACTERS` and texts that stand in two chapters; of texts that are the
    same but for white space, case and punctuation within a chapter the first is kept. The order
    is that of the module names, then of the source.

    Returns:
        Examples of kind "single"; `label_names` are the names in `CHAPTERS`, `group` the modules.

    Raises:
        InputError: this Python comes without the sources of its library.
    """
    folder = Path(sysconfig.get_path("stdlib"))
    found = [*_from_sources(folder), *_from_extensions()]
    found.sort(key=lambda item: item[0])  # stable: within a module the order stays
    chapters: dict[str, set[str]] = {}
    kept: dict[str, tuple[str, str]] = {}
    for module, text in found:
        if len(text) >= MIN_CHARACTERS:
            chapters.setdefault(essence(text), set()).add(_CHAPTER_OF[module])
            kept.setdefault(essence(text), (module, text))
    rows = [row for words, row in kept.items() if len(chapters[words]) == 1]
    if len(rows) < MIN_EXAMPLES:
        raise InputError(
            f"[data] name = 'stdlib-docs': {folder} holds {len(rows)} docstrings, at least "
            f"{MIN_EXAMPLES} were expected; this Python comes without the sources of its library, "
            "so use another Python or name a data set of your own"
        )
    return Examples(
        kind="single",
        text=tuple(text for _, text in rows),
        label=np.array([_CLASS_OF[_CHAPTER_OF[module]] for module, _ in rows], dtype=np.int64),
        label_names=tuple(CHAPTERS),
        group=tuple(module for module, _ in rows),
    )


def _from_sources(folder: Path) -> Iterator[tuple[str, str]]:
    packages = {module.partition(".")[0] for module in _CHAPTER_OF}
    for name in sorted(packages | set(IMPLEMENTS)):
        for path in (folder / f"{name}.py", *sorted((folder / name).rglob("*.py"))):
            if not path.exists() or {"test", "tests"} & set(path.relative_to(folder).parts):
                continue
            with warnings.catch_warnings():
                # Old sources have escapes such as "\d" in plain strings; that is not our matter.
                warnings.simplefilter("ignore", SyntaxWarning)
                warnings.simplefilter("ignore", DeprecationWarning)
                tree = ast.parse(path.read_bytes(), filename=str(path))
            for text in _docstrings(tree):
                yield IMPLEMENTS.get(name, name), text


def _docstrings(node: ast.Module | _Definition) -> Iterator[str]:
    if text := ast.get_docstring(node):
        yield text
    for child in _definitions(node.body):
        yield from _docstrings(child)


def _definitions(body: list[ast.stmt]) -> Iterator[_Definition]:
    for statement in body:
        if isinstance(statement, _Definition):
            yield statement
        else:
            for block in ("body", "handlers", "orelse", "finalbody"):
                yield from _definitions(getattr(statement, block, []))


def _from_extensions() -> Iterator[tuple[str, str]]:
    listed = {name: name for name in _CHAPTER_OF if "." not in name}
    for name, module in sorted((listed | EXTENSIONS).items()):
        spec = importlib.util.find_spec(name)
        compiled = isinstance(spec and spec.loader, ExtensionFileLoader)
        if not compiled and name not in sys.builtin_module_names:
            continue  # Python source, of another system, or left out of this build
        try:
            extension = importlib.import_module(name)
        except ImportError:
            continue  # a shared library it needs is not on this machine
        for text in _c_docstrings(extension, {name, module}):
            yield module, inspect.cleandoc(text)


def _c_docstrings(extension: types.ModuleType, homes: set[str]) -> Iterator[str]:
    members: list[object] = [extension]
    for _, value in sorted(vars(extension).items()):
        if getattr(value, "__module__", None) in homes:
            members.append(value)
            if isinstance(value, type):
                members += [member for _, member in sorted(vars(value).items())]
    for member in members:
        text = member.__doc__ if isinstance(member, _C_DOCUMENTED) else None
        if isinstance(text, str):
            yield text


def _count() -> str:
    examples = stdlib_docs()
    modules = Counter(_CHAPTER_OF[module] for module in set(examples.group or ()))
    rows = [
        f"{np.count_nonzero(examples.label == c):6} {modules[name]:8}  {name}"
        for c, name in enumerate(CHAPTERS)
    ]
    total = f"{len(examples):6} {sum(modules.values()):8}  all"
    version = ".".join(map(str, sys.version_info[:3]))
    return "\n".join([f"Python {version}", "  docs  modules  chapter", *rows, total])


if __name__ == "__main__":
    print(_count())
