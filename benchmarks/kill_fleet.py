"""Kill -9 a server and its clients at many moments; print what each did, and if the end is exact.

    python benchmarks/kill_fleet.py --kills 12

A server and three clients as real processes over Flower, on a small model (tests/tiny.py). The
server is killed at random calls of named places in its code, and after random seconds; every third
time its clients are, too. It is resumed each time, and its end is compared with that of a run that
was left alone: adapter, plan, checkpoint, every round's participants, weights, bytes, losses and
norms. Some minutes.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))


def main() -> None:
    from deploy.fleet_kills import differences, killed, left_alone

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rounds, seen = 3 * options.kills + 3, []

    def show(who: str, what: str, held: str) -> None:
        seen.append(who)
        print(f"{len(seen)}: {who} killed while {what}; the folder then held {held}", flush=True)

    with tempfile.TemporaryDirectory(prefix="fedpace-kills-") as name:
        whole = left_alone(Path(name) / "whole", rounds)
        print(f"{rounds} rounds left alone", flush=True)
        moments = np.random.default_rng(options.seed)
        run = killed(Path(name) / "killed", rounds, options.kills, moments, show)
        found = differences(run, whole)
    print(f"{len(seen)} kills in one run of {rounds} rounds: {', '.join(found) or 'exact'}")


if __name__ == "__main__":
    main()
