"""How long does `exact` take, from a hundred clients to a million? And against SLSQP?

    OMP_NUM_THREADS=2 python benchmarks/planner_speed.py                  # a few minutes
    OMP_NUM_THREADS=2 python benchmarks/planner_speed.py --most 10000
    OMP_NUM_THREADS=2 python benchmarks/planner_speed.py --allocation equal-finish
    OMP_NUM_THREADS=2 python benchmarks/planner_speed.py --schedule auto

The band is the default's, one that never idles. Seconds, processor seconds and peak memory of one
plan, each size in a fresh process, and the exponent of the cost in N. On a machine with other work
the processor seconds are what counts. Then the ratio to SciPy's SLSQP on the same objective and
gradient from one start at N = 100.
"""

import argparse
import json
import resource
import subprocess
import sys
import time

import numpy as np

import fedpace as fp
from fedpace.core.rng import rng_for

SIZES = (100, 1_000, 10_000, 100_000, 1_000_000)


def population(count: int, allocation: str = "work-conserving") -> tuple[fp.Clients, fp.System]:
    """Log-normal data, devices and links; a tenth of the clients upload while one computes."""
    rng = rng_for(0, "population", count)
    clients = fp.Clients.from_columns(
        data_weight=rng.lognormal(size=count),
        step_seconds=rng.lognormal(size=count),
        spectral_efficiency=2 * rng.lognormal(sigma=0.7, size=count),
        update_second_moment=rng.lognormal(sigma=0.5, size=count),
    )
    system = fp.System(
        bandwidth_hz=2e5 * count, lora_rank=16, local_steps=5, fixed_bits=4e6, bits_per_rank=1e6,
        overhead_seconds=0.5, allocation=allocation,
    )  # fmt: skip
    return clients, system


def measure(count: int, allocation: str, schedule: str) -> dict[str, float | str]:
    clients, system = population(count, allocation)
    fp.plan(*population(50, allocation), schedule=schedule)  # imports and caches
    times = []
    for _ in range(5 if count <= 1000 else 1):
        began = time.perf_counter(), time.process_time()
        made = fp.plan(clients, system, schedule=schedule)
        times.append((time.perf_counter() - began[0], time.process_time() - began[1]))
    seconds, processor = np.median(times, axis=0).tolist()
    gigabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return {"clients": count, "seconds": seconds, "processor": processor, "peak_gb": gigabytes,
            "verdict": made.verdict, "gain_uniform": made.gain["uniform"]}  # fmt: skip


def slsqp_ratio(allocation: str, count: int = 100) -> tuple[float, float, float]:
    """Processor seconds of exact, those of SLSQP from one start, and its objective over exact's."""
    from scipy.optimize import minimize

    from fedpace.planning.exact import exact
    from fedpace.planning.solver.objective import (
        Problem,
        evaluate,
        exact_law,
        log_objective,
        rank_limit,
    )

    clients, system = population(count, allocation)

    def problem() -> Problem:
        return Problem(clients, system)

    exact(problem(), None)
    began = time.process_time()
    decision = exact(problem(), None)
    ours = time.process_time() - began

    task = problem()
    most, law = np.log(rank_limit(task)), exact_law(task)

    def value(x: np.ndarray) -> tuple[float, np.ndarray]:
        q, k = np.exp(x[:count]), np.exp(x[count:])
        point = evaluate(task, law, q, k)
        slope = [point.time_by_q - point.rounds_by_q, point.time_by_k - point.rounds_by_k]
        return point.log_objective, np.concatenate(slope)

    start = np.concatenate([np.full(count, np.log(0.2)), most])
    limits = [(np.log(task.q_min), 0.0)] * count + [(0.0, m) for m in most]
    began = time.process_time()
    theirs = minimize(value, start, jac=True, bounds=limits, method="SLSQP",
                      options={"maxiter": 1000, "ftol": 1e-9})  # fmt: skip
    seconds = time.process_time() - began
    return ours, seconds, float(np.exp(theirs.fun - log_objective(task, decision)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--most", type=int, default=1_000_000, help="largest N")
    parser.add_argument("--one", type=int, help="measure this N alone and print JSON")
    parser.add_argument("--allocation", default="work-conserving")
    parser.add_argument("--schedule", default="synchronous")
    arguments = parser.parse_args()
    kind = arguments.allocation, arguments.schedule
    if arguments.one:
        print(json.dumps(measure(arguments.one, *kind)))
        return
    rows = []
    print(f"{'clients':>9} {'seconds':>9} {'processor':>9} {'peak GB':>8}  verdict")
    for count in (n for n in SIZES if n <= arguments.most):
        command = [
            sys.executable, __file__, "--one", str(count), "--allocation", kind[0],
            "--schedule", kind[1],
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        row = json.loads(done.stdout)
        rows.append(row)
        print(
            f"{count:>9} {row['seconds']:>9.3f} {row['processor']:>9.3f} {row['peak_gb']:>8.2f}  "
            f"{row['verdict']}"
        )
    first = rows[1] if len(rows) > 2 else rows[0]
    exponent = np.log(rows[-1]["processor"] / first["processor"]) / np.log(
        rows[-1]["clients"] / first["clients"]
    )
    print(f"cost exponent from N = {first['clients']} to {rows[-1]['clients']}: {exponent:.2f}")
    ours, theirs, excess = slsqp_ratio(arguments.allocation)
    print(
        f"N = 100: exact {ours:.3f} s, SLSQP {theirs:.2f} s from one start: {theirs / ours:.0f} x"
    )
    print(f"SLSQP's objective, ranks relaxed, over exact's, ranks whole: {excess:.4f}")


if __name__ == "__main__":
    main()
