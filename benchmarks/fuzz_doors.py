"""Knock at every door with bad content, many times, and say what was found.

    python benchmarks/fuzz_doors.py --cases 100000

The doors are those of `tests/fuzz/doors.py`; the heavy ones (a model folder, a run folder) get a
share of the cases. Prints for each door the cases, how many were taken and refused, the findings,
the slowest case and the memory. A case has its number: ``--door NAME --first N --cases 1`` repeats
it.
"""

import argparse
import contextlib
import os
import resource
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from random import Random

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from fuzz.doors import DOORS, HangError, knock
from fuzz.heavy_doors import HEAVY, prepare

HEAVY_SHARE = 0.01
"""Of the cases, for each heavy door."""


def main() -> int:
    """Parse the command line and knock; the status is 1 where something was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--door")
    arguments = parser.parse_args()
    doors = {n: d for n, d in {**DOORS, **HEAVY}.items() if arguments.door in (None, n)}
    heavy = [name for name in doors if name in HEAVY]
    light = len(doors) - len(heavy)
    each = int(arguments.cases * HEAVY_SHARE / max(1, len(heavy))) if light else arguments.cases
    rest = (arguments.cases - each * len(heavy)) // max(1, light)
    print("| door | cases | taken | refused | found | slowest s | memory MB |")
    print("|---|---|---|---|---|---|---|")
    findings = 0
    with tempfile.TemporaryDirectory() as name:
        if heavy:
            prepare(Path(name))
        for door_name, door in doors.items():
            count = each if door_name in heavy else rest
            findings += _tell(door_name, door, range(arguments.first, arguments.first + count))
    return 1 if findings else 0


def _tell(name, door, numbers) -> int:
    seen, slowest, kinds = Counter(), 0.0, {}
    with tempfile.TemporaryDirectory() as folder:
        with contextlib.suppress(Exception, HangError):  # what is imported late is imported now
            knock(door, Random(0), Path(folder))
        for number in numbers:
            began = time.process_time()
            try:
                seen[knock(door, Random(f"{name} {number}"), Path(folder))] += 1
            except (Exception, HangError) as error:
                last = traceback.extract_tb(error.__traceback__)[-1]
                kind = f"{type(error).__name__} in {Path(last.filename).name}:{last.lineno}"
                kinds.setdefault(kind, []).append((number, str(error)[:200]))
            slowest = max(slowest, time.process_time() - began)
    found = sum(map(len, kinds.values()))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"| {name} | {len(numbers)} | {seen['taken']} | {seen['refused']} | {found} "
        f"| {slowest:.1f} | {memory:.0f} |",
        flush=True,
    )
    for kind, cases in kinds.items():
        print(f"  {name}: {kind}: {len(cases)} cases, first {cases[0]}", flush=True)
    return found


if __name__ == "__main__":
    sys.exit(main())
