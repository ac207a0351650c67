"""Error of the predicted round time against Monte Carlo, over random populations.

    python benchmarks/round_time_accuracy.py [--populations 120] [--draws 20000] [--seed 0]
    python benchmarks/round_time_accuracy.py --allocation work-conserving [--draws 4000]
    python benchmarks/round_time_accuracy.py --gradients [--populations 60]
    python benchmarks/round_time_accuracy.py --replacement
    python benchmarks/round_time_accuracy.py --speed [--most 1000000]

Truth is the list of all sets of participants for N <= 12, and otherwise `--draws` simulated rounds
whose band is divided by the rule. The populations run through N from 2 to 1,000, computation
and link spread by a factor of 1 to 100, uploads short or long against the computation, five ways
to sample, constant and Shannon links, with and without clients' own limits and absences.
"""

import argparse
import resource
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np
from scipy.special import ndtr

from fedpace.core.plan import Decision
from fedpace.core.profile import AllocationRule, Clients, Floats, System
from fedpace.core.rng import rng_for
from fedpace.planning.round_time.band_share import band_share
from fedpace.planning.round_time.distribution import (
    choose_quadrature,
    enumerate_round_seconds,
    mean_and_gradient,
    mean_field_seconds,
    quantile_and_gradient,
    round_time,
    simulate_round_seconds,
    upper_bound_seconds,
)
from fedpace.planning.round_time.law import RoundLaw

CLASSES = ((2, 5), (6, 12), (13, 30), (31, 100), (101, 300), (301, 1000))
SAMPLING = ("uniform", "weighted", "water-filling", "near 0", "near 1")
SPREADS = (1.0, 3.0, 10.0, 100.0)
UPLOADS = (0.01, 0.3, 1.0, 10.0)
LEVEL = 0.95


@dataclass(frozen=True)
class Case:
    """One population with a plan."""

    name: str
    clients: Clients
    system: System
    plan: Decision


@dataclass(frozen=True)
class Truth:
    """What the round time is, and how well that is known."""

    mean: float
    mean_error: float
    """Standard error, relative."""
    low: float
    """The quantile lies in [low, high]: Monte Carlo's at 0.95 -+ 3 standard errors."""
    high: float

    def mean_off(self, value: float) -> float:
        return abs(value / self.mean - 1)

    def quantile_off(self, value: float) -> float:
        """0 inside [low, high]: where the distribution is flat the sample cannot tell."""
        nearest = np.clip(value, self.low, self.high)
        return float(abs(value / nearest - 1)) if nearest else float(value > 0)


def cases(count: int, seed: int, allocation: AllocationRule = "equal-finish") -> Iterator[Case]:
    for index in range(count):
        case = _case(index, rng_for(seed, "population", index))
        yield replace(case, system=replace(case.system, allocation=allocation))


def _case(index: int, rng: np.random.Generator) -> Case:
    low, high = CLASSES[index % len(CLASSES)]
    count = int(np.round(np.exp(rng.uniform(np.log(low), np.log(high)))))
    sampling = SAMPLING[index % len(SAMPLING)]
    compute, link = rng.choice(SPREADS, 2)
    upload = float(rng.choice(UPLOADS))
    shannon, limits = bool(rng.random() < 0.4), bool(rng.random() < 0.3)
    weight = rng.lognormal(0, 1, count)
    quality = np.exp(rng.uniform(0, np.log(link), count)) / upload
    columns = {
        "data_weight": weight,
        "step_seconds": np.exp(rng.uniform(0, np.log(compute), count)) / 5,
        "step_seconds_per_rank": rng.uniform(0, 0.002, count),
        "snr_hz" if shannon else "spectral_efficiency": quality * (1e6 if shannon else 1),
    }
    if limits:
        columns["max_bandwidth_hz"] = 1e6 * np.exp(rng.uniform(np.log(0.05), np.log(2), count))
    if rng.random() < 0.3:
        columns["availability"] = rng.uniform(0.5, 1, count)
    clients = Clients.from_columns(**columns)
    system = System(
        1e6, 16, bits_per_rank=1e5, overhead_seconds=float(rng.choice([0, 0.2])),
        allocation="equal-finish",
    )  # fmt: skip
    rank = rng.integers(4, 17, count)
    everyone = np.ones(count)
    q = _sampling(sampling, clients, RoundLaw.of(everyone, rank, clients, system), rng)
    links = "Shannon" if shannon else "constant"
    name = (
        f"{index}: N {count}, {sampling}, spread {compute:g}/{link:g}, upload {upload:g}, {links}"
    )
    return Case(
        name + (", limits" if limits else ""), clients, system,
        Decision(q, rank),
    )  # fmt: skip


def _sampling(kind: str, clients: Clients, law: RoundLaw, rng: np.random.Generator) -> Floats:
    count = len(clients)
    if kind == "uniform":
        return np.full(count, rng.uniform(0.02, 0.98))
    if kind == "near 0":
        return np.full(count, rng.uniform(0.3, 3) / count).clip(1e-6, 0.3)
    if kind == "near 1":
        return 1 - rng.choice([0.0, 1e-6, 1e-2, 0.1]) * rng.random(count)
    cost = 1.0 if kind == "weighted" else np.sqrt(law.start + law.solo)
    share = clients.data_weight / cost  # the water-filling form of an optimised sampler
    return np.minimum(1, share / share.sum() * count * rng.uniform(0.05, 0.8)).clip(1e-6)


def truth(case: Case, draws: int) -> Truth:
    plan, clients, system = case.plan, case.clients, case.system
    margin = 3 * np.sqrt(LEVEL * (1 - LEVEL) / draws)
    if len(clients) <= 12:
        seconds, chance = enumerate_round_seconds(plan, clients, system)
        order = np.argsort(seconds)
        below = np.cumsum(chance[order])
        at = [np.searchsorted(below, LEVEL + side * margin) for side in (-1, 1)]
        low, high = seconds[order[np.minimum(at, len(order) - 1)]]
        return Truth(float(seconds @ chance), 0.0, low, high)
    # Empty rounds have a known probability: the rest is estimated, with less noise.
    busy = 1 - RoundLaw.of(plan.sampling_probability, plan.sketch_rank, clients, system).empty()
    seconds = simulate_round_seconds(plan, clients, system, draws, 1)
    load = seconds[seconds > system.overhead_seconds] - system.overhead_seconds
    mean = system.overhead_seconds + busy * load.mean()
    low, high = np.quantile(seconds, [LEVEL - margin, LEVEL + margin], method="nearest")
    error = busy * load.std() / np.sqrt(len(load)) / mean
    return Truth(float(mean), float(error), float(low), float(high))


def normal_law(case: Case) -> tuple[float, float]:
    """Mean and quantile by the normal law, the band's load taken as Gaussian (method 4)."""
    q, k = case.plan.sampling_probability, case.plan.sketch_rank
    law = RoundLaw.of(q, k, case.clients, case.system)
    alone = law.start + law.solo
    seconds = np.concatenate([law.quadrature(8), alone])
    seconds = np.unique(np.concatenate([seconds, alone * (1 - 1e-9)]))
    load = band_share(law.bits, seconds[:, None] - law.start, law.link, law.band)[0]
    can = alone <= seconds[:, None] * (1 + 1e-12)
    load = np.where(can, load, 0.0)
    mean = load @ law.probability
    deviation = np.sqrt(load**2 @ (law.probability * (1 - law.probability)))
    absent = np.log(np.maximum(1 - law.probability, 1e-300))
    value = np.exp(~can @ absent) * ndtr((1 - mean) / np.maximum(deviation, 1e-9))
    value = np.maximum.accumulate(value)
    overhead = case.system.overhead_seconds
    expected = float(np.diff(seconds) @ (1 - (value[1:] + value[:-1]) / 2)) + seconds[0]
    quantile = seconds[min(np.searchsorted(value, LEVEL), len(seconds) - 1)]
    return overhead + expected, overhead + float(quantile)


def errors(case: Case, draws: int) -> Mapping[str, tuple[float, float]]:
    """Relative errors of mean and 95 % quantile by method; NaN where it gives none."""
    true = truth(case, draws)
    given = (case.plan.sampling_probability, case.plan.sketch_rank, case.clients, case.system)
    law = round_time(case.plan, case.clients, case.system)
    found = {
        "round_time": (law.mean, law.quantile(LEVEL)),
        "..._and_gradient": (
            mean_and_gradient(*given)[0],
            quantile_and_gradient(LEVEL, *given)[0],
        ),
    }
    if case.system.allocation == "work-conserving":
        still = replace(case.system, allocation="equal-finish")
        static = round_time(case.plan, case.clients, still)
        found["equal finish"] = static.mean, static.quantile(LEVEL)
        off = {n: (true.mean_off(m), true.quantile_off(p)) for n, (m, p) in found.items()}
        return {**off, "(Monte Carlo)": (true.mean_error, np.nan)}
    found |= {
        "normal law": normal_law(case),
        "mean field": (mean_field_seconds(*given), np.nan),
        "upper bound": (upper_bound_seconds(*given), np.nan),
    }
    plain = case.clients.snr_hz is None and np.all(case.clients.max_bandwidth_hz == np.inf)
    found["  constant links"] = (found["upper bound"][0] if plain else np.nan, np.nan)
    off = {n: (true.mean_off(m), true.quantile_off(p)) for n, (m, p) in found.items()}
    return {**off, "(Monte Carlo)": (true.mean_error, np.nan)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--populations", type=int, default=120)
    parser.add_argument("--draws", type=int, default=20_000)
    parser.add_argument("--allocation", choices=get_args(AllocationRule), default="equal-finish")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verbose", action="store_true", help="a line per population")
    parser.add_argument("--gradients", action="store_true", help="40 nodes against 320")
    parser.add_argument("--replacement", action="store_true", help="plans of K draws instead")
    parser.add_argument("--speed", action="store_true", help="seconds a call, not errors")
    parser.add_argument("--most", type=int, default=1_000_000, help="largest N of --speed")
    options = parser.parse_args()
    if options.speed:
        return speed(options.most)
    if options.gradients:
        return gradients(options.populations, options.seed)
    if options.replacement:
        return replacement(options.draws)
    began, rows = time.perf_counter(), []
    for case in cases(options.populations, options.seed, options.allocation):
        rows.append((len(case.clients), errors(case, options.draws)))
        if options.verbose:
            shown = ", ".join(f"{n} {m:.4f} {p:.4f}" for n, (m, p) in rows[-1][1].items())
            print(f"{case.name}: {shown}", flush=True)
    print("relative error of mean and of the 95 % quantile, per cent: median / 95 % / max\n")
    print(f"| {'N':>9} | method           | mean                  | 95 % quantile         |")
    print("|----------:|------------------|-----------------------|-----------------------|")
    for low, high in (*CLASSES, (2, 1000)):
        here = [found for count, found in rows if low <= count <= high]
        for method in here[0] if here else ():
            table = np.array([found[method] for found in here])
            cells = [_cell(table[:, 0]), _cell(table[:, 1])]
            print(f"| {f'{low}-{high}':>9} | {method:<16} | {cells[0]} | {cells[1]} |")
    print(f"\n{len(rows)} populations, {time.perf_counter() - began:.0f} s")


def gradients(count: int, seed: int) -> None:
    """What the number of nodes does to the mean and to its derivatives."""
    rows = []
    for case in cases(count, seed):
        given = (case.plan.sampling_probability, case.plan.sketch_rank, case.clients, case.system)
        many = mean_and_gradient(*given, quadrature=choose_quadrature(*given, fineness=8))
        few = mean_and_gradient(*given)
        off = [np.max(np.abs(a - b)) / np.max(np.abs(b)) for a, b in zip(few, many, strict=True)]
        sums = [given[1] @ found[2] / found[0] for found in (few, many)]
        rows.append([*off, abs(sums[0] - sums[1])])
    print("mean, largest dE/dq and dE/dk, relative to the largest; change of sum k dE/dk / E")
    print("per cent: median / 95 % / max\n")
    for name, column in zip(("mean", "dE/dq", "dE/dk", "sum"), np.array(rows).T, strict=True):
        print(f"{name:<6} {_cell(column)}")


def replacement(draws: int) -> None:
    """How far independent participation is from K draws with replacement."""
    print("|    N |  K | spread | mean, % | 95 % quantile, % |")
    print("|-----:|---:|-------:|--------:|-----------------:|")
    for count, number in ((20, 5), (100, 2), (100, 10), (100, 40), (1000, 20)):
        for spread in (1, 10, 100):
            rng = rng_for(0, "population", count, spread)
            even = np.log(spread) * rng.random((2, count))
            clients = Clients.from_columns(
                data_weight=rng.lognormal(0, 1, count),
                step_seconds=np.exp(even[0]) / 5,
                spectral_efficiency=np.exp(even[1]),
            )
            system = System(1e6, 16, bits_per_rank=1e5, allocation="equal-finish")
            rank = np.full(count, 8)
            weight = clients.data_weight.copy()
            plan = Decision(weight, rank, number)
            seconds = simulate_round_seconds(plan, clients, system, draws, 1)
            law = round_time(plan, clients, system)
            mean = 100 * (law.mean / seconds.mean() - 1)
            quantile = 100 * (law.quantile(LEVEL) / np.quantile(seconds, LEVEL) - 1)
            print(f"| {count:4d} | {number:2d} | {spread:6d} | {mean:7.1f} | {quantile:16.1f} |")


def speed(most: int) -> None:
    print("processor seconds of one call; best of up to 50\n")
    print("|       N | E[K] | link     | choose_quadrature | mean_and_gradient, nodes kept |")
    print("|--------:|-----:|----------|-------------:|------------------------------:|")
    for count in (100, 1_000, 10_000, 100_000, 1_000_000):
        for participants in (20, count // 10):
            for link, scale in (("spectral_efficiency", 1.0), ("snr_hz", 1e7)):
                if count > most:
                    return print(_peak())
                rng = rng_for(0, "population", count)
                quality = scale * np.exp(rng.uniform(0, np.log(10), count))
                seconds = np.exp(rng.uniform(0, np.log(10), count)) / 5
                clients = Clients.from_columns(
                    data_weight=np.ones(count), step_seconds=seconds, **{link: quality}
                )
                system = System(1e6, 16, bits_per_rank=1e5, allocation="equal-finish")
                q = participants / count * rng.uniform(0.5, 1.5, count)
                given = (q, np.full(count, 8), clients, system)
                quadrature = choose_quadrature(*given)
                placing = _best(lambda given=given: choose_quadrature(*given))
                call = _best(
                    lambda given=given, quadrature=quadrature: mean_and_gradient(
                        *given, quadrature=quadrature
                    )
                )
                name = "Shannon" if link == "snr_hz" else "constant"
                row = f"| {count:7d} | {participants:4d} | {name:<8} |"
                print(f"{row} {placing:12.4f} | {call:29.4f} |", flush=True)
    print(_peak())


def _peak() -> str:
    return f"\npeak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB"


def _best(call: Callable[[], object]) -> float:
    seconds, spent = [], 0.0
    while len(seconds) < 50 and spent < 2:
        began = time.process_time()
        call()
        seconds.append(time.process_time() - began)
        spent += seconds[-1]
    return min(seconds)


def _cell(values: Floats) -> str:
    if np.isnan(values).all():
        return " " * 21
    numbers = np.nanquantile(values, [0.5, 0.95, 1.0]) * 100
    return " / ".join(f"{number:5.2f}" if number < 100 else f"{number:5.0f}" for number in numbers)


if __name__ == "__main__":
    main()
