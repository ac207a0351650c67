"""What a bounded bias costs at the end of a training, and whether renewed plans take it back.

`python benchmarks/bias_at_the_end.py --data DATA`: one setting of the suite evidence.toml, ways to
run it: rounds that wait; overlapping ones without a bias, with one that stays, with one whose plan
is renewed from the measured noise, and with one that stays and the server's step of the first. Each
also with a server's rate that follows the noise (but the last). Trained and evaluated on tuning
data. Prints the held-out accuracy over the clock, and each plan's bias and distance of shares,
sum |p - a| / 2. About four minutes of a core a training.
"""

import argparse
from pathlib import Path

import numpy as np

from fedpace.bench.suite import experiment_of, load_suite
from fedpace.experiment.config import Experiment
from fedpace.experiment.loop import play
from fedpace.experiment.prepare import prepare

SUITE = Path(__file__).parent / "suites" / "evidence.toml"
RATE = {"server_optimizer": "adam", "server_learning_rate": 0.01}
WAYS = {
    "waits": {},
    "no bias": {},
    "bias stays": {"max_bias": 0.2},
    "renewed": {"max_bias": 0.2, "replan_every": 20},
    "small steps": {"max_bias": 0.2},
}
TRAINING = {"small steps": {"beat_rate_factor": 0.55}}
"""Keys of [training] besides."""
FOLLOWS = ", follows"
for _way in [way for way in WAYS if way not in TRAINING]:
    WAYS[_way + FOLLOWS] = WAYS[_way]
    TRAINING[_way + FOLLOWS] = {"server_decay": "noise"}


def trained(experiment: Experiment, seconds: float) -> tuple[list[float], list[float], list[str]]:
    """Return clocks and accuracies of the evaluations up to a clock, and the plans in force."""
    ready = prepare(experiment)
    share = ready.site.work.network.clients.data_weight
    clock, accuracy, plans, last = [], [], [], None
    for record, plan in play(ready, "adaptive"):
        if plan.decision is not last:
            weight = share if plan.aggregation_weight is None else plan.aggregation_weight
            apart = float(np.abs(weight - share).sum() / 2)
            bias = plan.statistics.get("bias", 0.0)
            plans.append(f"{record.clock_seconds:.0f} s: bias {bias:.2f}, {apart:.2f} moved")
            last = plan.decision
        if record.evaluation is not None:
            clock.append(record.clock_seconds)
            accuracy.append(record.evaluation["accuracy"])
        if record.clock_seconds >= seconds:
            break
    return clock, accuracy, plans


def main() -> None:
    """Train and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--network", default="compute-bound", help="of evidence.toml")
    parser.add_argument("--seeds", type=int, nargs="+", default=[100], help="tuning seeds")
    parser.add_argument("--seconds", type=float, default=400.0, help="of the run's clock")
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    told = parser.parse_args()
    suite = load_suite(SUITE, told.data)
    edges = np.linspace(0, told.seconds, 9)
    print("way                seed  " + "  ".join(f"-{edge:.0f} s" for edge in edges[1:]))
    for seed in told.seeds:
        for way in told.ways:
            method = "synchronous" if way.startswith("waits") else "overlapping"
            experiment = experiment_of(
                suite, "trec", told.network, method, rate={**RATE, **TRAINING.get(way, {})},
                size={"noise_ratio": 0.5, **WAYS[way]}, seed=seed, tuning=True,
            )  # fmt: skip
            clock, accuracy, plans = trained(experiment, told.seconds)
            part = np.digitize(clock, edges[1:-1])
            means = [np.mean(np.array(accuracy)[part == i]) for i in range(8)]
            print(f"{way:<18} {seed}   " + "  ".join(f"{m:.3f}" for m in means), flush=True)
            print("    " + "; ".join(plans), flush=True)


if __name__ == "__main__":
    main()
