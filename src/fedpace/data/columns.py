"""Which columns make an example, and which one a near miss was probably meant to be."""

import difflib
import re
import unicodedata
from collections.abc import Collection, Iterable

from fedpace.core.text_files import shortened

KINDS = {
    "pair": ("text", "text_pair", "label"),
    "single": ("text", "label"),
    "instruct": ("prompt", "response"),
    "chat": ("messages",),
    "corpus": ("text",),
}
"""Kind to the columns it needs; the first whose columns are all there is taken."""

KNOWN = ("text", "text_pair", "label", "prompt", "response", "messages", "group")

_OTHER_NAMES = {
    "text": "sentence sentences texts content review document body passage sentence1 premise "
    "text1 comment tweet utterance",
    "text_pair": "sentence2 hypothesis text2 textb",
    "label": "labels class classes category target targets y intent sentiment topic tag labeltext",
    "prompt": "prompts instruction instructions question input query",
    "response": "responses answer answers output completion reply",
    "group": "groups speaker domain author",
}
_MEANT = {other: known for known, others in _OTHER_NAMES.items() for other in others.split()}

FORMS = "known are " + ", ".join("{" + ", ".join(needed) + "}" for needed in KINDS.values())


def kind_of(present: Collection[str]) -> str | None:
    """Return the kind of example that these columns make; None for none."""
    return next((kind for kind, needed in KINDS.items() if set(present) >= set(needed)), None)


def respelt(columns: Iterable[str]) -> dict[str, str]:
    """Return the columns that are a known one but for case, spaces and marks, and that one.

    Example:
        >>> respelt(["Text", " label", "id", "text-pair"])
        {'Text': 'text', ' label': 'label', 'text-pair': 'text_pair'}
    """
    names = list(columns)
    known = {_folded(name): name for name in KNOWN}
    found = {name: known[_folded(name)] for name in names if _folded(name) in known}
    return {name: meant for name, meant in found.items() if meant not in names}


def meant(columns: Iterable[str]) -> dict[str, str]:
    """Return the columns that probably were meant to be known ones, and which.

    Example:
        >>> meant(["sentence", "lable", "id"])
        {'sentence': 'text', 'lable': 'label'}
    """
    names = list(columns)
    found = respelt(names)
    folded = {_folded(name): name for name in KNOWN}
    for name in names:
        short = _folded(name)
        close = difflib.get_close_matches(short, folded, n=1, cutoff=0.8)
        probable = _MEANT.get(short) or (folded[close[0]] if close else None)
        taken = {*names, *found.values()}
        if name not in KNOWN and name not in found and probable and probable not in taken:
            found[name] = probable
    return found


def hint(columns: Iterable[str]) -> str:
    """Say what to rename; empty where nothing comes near.

    Example:
        >>> hint(["sentence", "label"])
        "; 'sentence' is probably meant as 'text': rename it"
    """
    names = list(columns)
    if len(names) == 1 and (marks := [mark for mark in "\t;|" if mark in names[0]]):
        return f"; columns seem to be separated by {marks[0]!r}: separate them by commas"
    found = [f"{shortened(name)} {{}}as {m!r}" for name, m in meant(names).items()]
    listed = ", ".join(found).replace("{}", "is probably meant ", 1).replace("{}", "")
    return f"; {listed}: rename {'it' if len(found) == 1 else 'them'}" if found else ""


def _folded(name: str) -> str:
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", name).casefold())
