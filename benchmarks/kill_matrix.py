"""Kill -9 a run at many random moments; print what it was doing and whether the resume was exact.

    python benchmarks/kill_matrix.py --kills 50

A small but real model and data set are made on the spot (tests/tiny.py). Half of the kills come
after random seconds, half at a random call of a named place in the code, before or after it is done
(tests/experiment/kills.py). Every killed run is resumed and compared with the uninterrupted one, to
the bit: adapters, records, plans, clients, summary, report, checkpoints. Also the cost of a
checkpoint. A few minutes on two cores.
"""

import argparse
import collections
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

METHODS = ("adaptive", "uniform")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fedpace-kills-") as name:
        kill(Path(name), options.kills, np.random.default_rng(options.seed))
        cost(Path(name))


def kill(place: Path, kills: int, rng: np.random.Generator) -> None:
    import tiny
    from experiment.kills import PLACES, differences, killed_run, without_report
    from warm import Command

    memory = "server_memory = 0.5\nserver_learning_rate"
    tiny.write_experiment(place, tiny.EXPERIMENT.replace("server_learning_rate", memory))
    assert Command(["run", "my.toml", "--out", "whole"], place, place / "said").wait() == 0
    began, first = time.monotonic(), without_report
    assert (
        Command(["run", "my.toml", "--out", "timed"], place, place / "said", first=first).wait()
        == 0
    )
    seconds = time.monotonic() - began
    places = list(PLACES)
    table: dict[tuple[str, str], list[bool]] = collections.defaultdict(list)
    for number in range(kills):
        folder = place / f"run-{number}"
        if number % 2:
            what = "anything (random seconds)"
            how: object = float(rng.uniform(0.1, 1.0)) * seconds
        else:
            what = places[(number // 2) % len(places)]
            count = int(rng.integers(1, PLACES[what][1] + 1))
            how = (what, count, bool(rng.integers(2)))
        report = what == "writing the report"
        killed, held = killed_run(place, "my.toml", folder, how, report)
        found = differences(folder, place / "whole", METHODS, report)
        table[what, held if killed else "it had ended"].append(not found)
        print(f"{number + 1}: {what}, then {held}: {', '.join(found) or 'exact'}", flush=True)
    print(f"{'killed while':28} {'the folder then held':22} kills exact")
    for (what, held), exact in sorted(table.items()):
        print(f"{what:28} {held:22} {len(exact):5} {sum(exact):5}")
    every = [one for exact in table.values() for one in exact]
    print(f"{'all':28} {'':22} {len(every):5} {sum(every):5}")


def cost(place: Path) -> None:
    from fedpace.run_folder.checkpoint import read_checkpoint, write_checkpoint
    from fedpace.run_folder.schema import Checkpoint

    rng = np.random.default_rng(0)
    small = read_checkpoint(place / "whole", "adaptive")
    assert small is not None
    # MiniLM, rank 16, query and value of six layers, with Adam's two moments; and a model whose
    # adapter is a hundred times that.
    sizes = {"tiny": small}
    for name, values in (("MiniLM, rank 16", 147_456 + 4_620), ("100 times that", 15_207_600)):
        adapter = {"x": rng.normal(size=values).astype(np.float32)}
        moments = {"mean/x": adapter["x"], "square/x": adapter["x"]}
        sizes[name] = Checkpoint(adapter, moments, {}, small.state)
    print(f"\n{'checkpoint of':20} bytes       seconds to write (median of 9)")
    for name, checkpoint in sizes.items():
        taken = []
        for _ in range(9):
            began = time.perf_counter()
            write_checkpoint(place, "cost", checkpoint)
            taken.append(time.perf_counter() - began)
        size = (place / "checkpoint" / "cost.safetensors").stat().st_size
        print(f"{name:20} {size:<11} {float(np.median(taken)):.4f}")


if __name__ == "__main__":
    main()
