import ast
import math
import sysconfig
import types
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from fedpace.core.errors import InputError
from fedpace.data import stdlib_docs as module
from fedpace.data.chapters import CHAPTERS, EXTENSIONS, IMPLEMENTS
from fedpace.data.split import essence, hold_out
from fedpace.data.stdlib_docs import stdlib_docs

LISTED = [name for names in CHAPTERS.values() for name in names.split()]


@pytest.fixture(scope="module")
def docs():
    return stdlib_docs()


def text_of(docs, wanted):
    """Where a docstring that Python itself gives out stands: its module and class."""
    row = docs.text.index(wanted)
    return docs.group[row], docs.label_names[docs.label[row]]


def test_every_module_is_listed_once_and_its_package_too():
    assert max(Counter(LISTED).values()) == 1
    assert {name.partition(".")[0] for name in LISTED} <= set(LISTED)
    assert {*IMPLEMENTS.values(), *EXTENSIONS.values()} <= set(LISTED)


def test_there_are_about_seven_thousand_docstrings_in_about_170_modules(docs):
    assert 6000 < len(docs) < 9000
    assert 150 < len(set(docs.group)) < 200
    assert docs.label_names == tuple(CHAPTERS)


def test_every_class_is_big_enough_to_learn_and_none_outweighs_the_others(docs):
    count = np.bincount(docs.label, minlength=len(CHAPTERS))
    assert count.min() >= 150
    assert count.max() < 0.2 * len(docs)


def test_docstrings_stand_where_the_library_reference_has_them(docs):
    import collections.abc
    import itertools
    import json
    import os
    import posixpath
    import textwrap

    def said(thing):
        import inspect

        return inspect.getdoc(thing)

    files = "Files, persistence, compression and cryptography"
    numeric = "Numeric, mathematical and functional programming"
    system = "Operating system and command line"
    assert text_of(docs, said(json.dumps)) == ("json", "Internet data handling")
    assert text_of(docs, said(textwrap.dedent)) == ("textwrap", "Text and binary data")
    assert text_of(docs, said(posixpath.expandvars)) == ("os.path", files)
    assert text_of(docs, said(math.sqrt)) == ("math", numeric)
    assert text_of(docs, said(itertools.chain)) == ("itertools", numeric)
    assert text_of(docs, said(os.urandom)) == ("os", system)
    assert text_of(docs, said(os.makedirs)) == ("os", system)
    assert text_of(docs, said(collections.abc.Sequence)) == ("collections.abc", "Data types")
    assert text_of(docs, said(collections.OrderedDict.popitem)) == ("collections", "Data types")


def test_no_two_texts_are_the_same_in_their_words(docs):
    assert len({essence(text) for text in docs.text}) == len(docs)


def test_no_text_is_empty_or_very_short(docs):
    assert min(len(text) for text in docs.text) == module.MIN_CHARACTERS


def test_a_text_of_two_chapters_is_left_out_and_one_of_two_modules_kept_once(monkeypatch):
    found = [
        ("zlib", "Close the underlying file."),
        ("socket", "close  the underlying file"),  # another chapter, the same words
        ("posixpath", "too short"),
        ("gzip", "Return the size in bytes."),
        ("bz2", "Return the size,\nin bytes."),  # the same chapter
    ]
    monkeypatch.setattr(module, "_from_sources", lambda folder: iter(found))
    monkeypatch.setattr(module, "_from_extensions", lambda: iter(()))
    monkeypatch.setattr(module, "MIN_EXAMPLES", 0)
    small = stdlib_docs.__wrapped__()
    assert (small.text, small.group) == (("Return the size,\nin bytes.",), ("bz2",))


@pytest.mark.slow
def test_the_order_is_by_module_and_the_same_when_built_again(docs):
    assert all(a <= b for a, b in pairwise(docs.group))
    again = stdlib_docs.__wrapped__()
    assert (again.text, again.group) == (docs.text, docs.group)
    np.testing.assert_array_equal(again.label, docs.label)


def test_the_text_is_the_docstring_without_the_name_of_what_it_describes(docs):
    folder = sysconfig.get_path("stdlib")
    tree = ast.parse(Path(folder, "bisect.py").read_text())
    expected = [ast.get_docstring(n) for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
    found = [t for t, g in zip(docs.text, docs.group) if g == "bisect"]
    assert set(expected) <= set(found)


def test_definitions_inside_conditions_and_handlers_are_found():
    source = '''"""Module."""
if True:
    def a():
        """A."""
        def inner():
            """Inner."""
try:
    pass
except ImportError:
    class B:
        """B."""
        async def method(self):
            """Method."""
'''
    assert list(module._docstrings(ast.parse(source))) == [
        "Module.",
        "A.",
        "Inner.",
        "B.",
        "Method.",
    ]


def test_extensions_are_walked_without_what_they_borrow():
    extension = types.ModuleType("_spam", "The module.")
    extension.Own = type(
        "Own", (), {"__module__": "spam", "__doc__": "Own class.", "__slots__": ()}
    )
    extension.Borrowed = type("Borrowed", (), {"__module__": "eggs", "__doc__": "Not ours."})
    extension.length = len
    extension.sin = math.sin
    extension.number = 3
    found = list(module._c_docstrings(extension, {"_spam", "spam", "math"}))
    assert found == ["The module.", "Own class.", math.sin.__doc__]


def test_a_python_without_sources_is_an_input_error(monkeypatch, tmp_path):
    monkeypatch.setattr(module.sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(InputError, match="without the sources of its library"):
        stdlib_docs.__wrapped__()


def test_words_tell_the_chapter_far_better_than_chance_and_not_perfectly(docs):
    train, test = hold_out(docs, 0.15, seed=0)
    words = {word: i for i, word in enumerate(sorted(set(essence(" ".join(docs.text)).split())))}

    def bag(text):
        return [words[word] for word in essence(text).split()]

    count = np.full((len(CHAPTERS), len(words)), 0.1)  # multinomial naive Bayes
    for text, c in zip(train.text, train.label):
        np.add.at(count[c], bag(text), 1)
    log_chance = np.log(count / count.sum(axis=1, keepdims=True))
    size = np.bincount(train.label)
    guess = [np.argmax(np.log(size) + log_chance[:, bag(t)].sum(axis=1)) for t in test.text]
    accuracy = np.mean(guess == test.label)
    print(f"\nnaive Bayes accuracy {accuracy:.3f}, largest class {size.max() / size.sum():.3f}")
    assert 0.45 < accuracy < 0.9


def test_the_command_prints_a_count_for_every_chapter(docs):
    lines = module._count().splitlines()
    assert [line.split(maxsplit=2)[2] for line in lines[2:-1]] == list(CHAPTERS)
    assert sum(int(line.split()[0]) for line in lines[2:-1]) == len(docs)
    assert lines[-1].split() == [str(len(docs)), str(len(set(docs.group))), "all"]
