"""How well the noise scale is measured, and how plans are renewed from it.

    OMP_NUM_THREADS=1 python benchmarks/renewal.py [estimate pilots doubt hysteresis time]

Prints the tables of docs/noise-scale.md; without arguments all of them, in about five minutes on
one core. The updates are synthetic, so that the truth is known: client n's are normal around a mean
direction of its own (`KnownNoise`). Devices and links are those of the scenarios.
"""

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from fedpace.core.plan import Plan
from fedpace.core.profile import Clients, System
from fedpace.core.record import RoundRecord
from fedpace.core.rng import rng_for
from fedpace.estimation.noise_scale import estimate_noise_scale, noise_scale
from fedpace.estimation.noise_state import initial_noise_state, observe
from fedpace.estimation.pilots import estimate_from_pilots
from fedpace.planning.planner import plan
from fedpace.planning.renewal import expected_seconds, renew_every
from fedpace.wireless.bandwidth import allocate_bandwidth
from fedpace.wireless.channel import faded, fading_gains, mean_faded, uplink
from fedpace.wireless.latency import start_seconds, upload_bits
from fedpace.wireless.population import draw_clients, scenario_named

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from planning.known_noise import KnownNoise

RANK = 16


def estimate() -> None:
    """Bias, spread and coverage of the estimator from arriving updates."""
    print("participants rounds forget | true ratio  median   10 %   90 %  covered  sufficient")
    settings = [
        (apart, joined, rounds, forget)
        for apart in (1.0, 3.0, 8.0)
        for joined, rounds, forget in (
            (3, 30, 1.0), (10, 10, 1.0), (10, 30, 1.0), (10, 100, 0.95), (25, 30, 1.0)
        )
    ]  # fmt: skip
    for apart, joined, rounds, forget in settings:
        world = KnownNoise(apart=apart, noise=apart)
        rng = rng_for(0, "simulation", 0)
        found = [
            estimate_noise_scale(
                list(world.rounds(np.full(50, joined / 50), rounds, rng)),
                world.data_weight, world.rank, forget=forget,
            )
            for _ in range(200)
        ]  # fmt: skip
        ratios = [f.ratio for f in found]
        low, median, high = np.quantile(ratios, [0.1, 0.5, 0.9], method="nearest")
        covered = np.mean(
            [f.ratio_interval[0] <= world.ratio <= f.ratio_interval[1] for f in found]
        )
        print(
            f"{joined:12d} {rounds:6d} {forget:6.2f} | {world.ratio:10.3f} {median:7.3f} "
            f"{low:6.3f} {high:6.3f} {covered:8.3f} {np.mean([f.sufficient for f in found]):11.2f}"
        )


def pilots() -> None:
    """The two-pilot estimator on loss curves that follow the model, with run-to-run spread."""
    ratio, variance, levels = 0.5, (10.0, 6.0), np.linspace(0.8, 3.0, 8)
    print(f"true ratio {ratio}; V/V_full of the pilots {variance}")
    print("spread of a run's rounds  pilots of a kind |   10 %  median    90 %  covered")
    for spread in (0.0, 0.02, 0.05, 0.1):
        for repeats in (1, 5):
            rng = rng_for(0, "simulation", 1)

            def curve(x: float, rng=rng, spread=spread):
                scale = 20 * (1 + ratio * x) * np.exp(spread * rng.normal())
                rounds = np.arange(int(5 * scale))
                return 0.3 + 4 * np.exp(-rounds / scale) + 0.02 * rng.normal(size=len(rounds))

            found = [
                estimate_from_pilots(
                    tuple([curve(x) for _ in range(repeats)] for x in variance), variance, levels
                )
                for _ in range(200)
            ]
            low, median, high = np.quantile(
                [f.ratio for f in found], [0.1, 0.5, 0.9], method="nearest"
            )
            inside = [f.ratio_interval[0] <= ratio <= f.ratio_interval[1] for f in found]
            print(
                f"{spread:25.2f} {repeats:17d} | {low:6.2f} {median:7.2f} {high:7.2f} "
                f"{np.mean(inside):8.2f}"
            )


def population(count: int, scenario: str, ratio: float) -> tuple[Clients, System, KnownNoise]:
    """Clients whose updates have this noise ratio, as they are between fading blocks."""
    base = KnownNoise(count=count, size=100, apart=1.0, noise=1.0)
    # V_full grows with the square of the scatter, the cross product hardly at all.
    scatter = float(np.sqrt(ratio / base.ratio))
    world = KnownNoise(count=count, size=100, apart=scatter, noise=scatter)
    system = System(
        bandwidth_hz=scenario_named(scenario).bandwidth_hz,
        lora_rank=RANK,
        bits_per_rank=1e6,
        fixed_bits=1e5,
        noise_ratio=world.ratio,
        overhead_seconds=2.0,
        allocation="equal-finish",
    )
    cell = replace(scenario_named(scenario), ratio_cohort=count / 10)
    clients = draw_clients(cell, world.data_weight, 0, system)
    columns = {**clients.columns(), "update_second_moment": world.second_moment}
    return Clients.from_columns(**columns), system, world


def doubt() -> None:
    """What a plan loses where the noise ratio it was made with is wrong."""
    print("loss in predicted time, %, of planning with the ratio times ...")
    factors = (0.1, 0.33, 0.5, 2.0, 3.0, 10.0)
    print(f"{'scenario':20s} true ratio |" + "".join(f"{f:8g}" for f in factors))
    for scenario in ("cell-balanced", "cell-compute-bound", "cell-link-bound"):
        for ratio in (0.1, 0.5, 2.0):
            clients, system, _ = population(100, scenario, ratio)
            best = expected_seconds(plan(clients, system), clients, system)
            losses = []
            for factor in factors:
                wrong = replace(system, noise_ratio=system.noise_ratio * factor)
                got = expected_seconds(plan(clients, wrong), clients, system)
                losses.append(f"{100 * (got / best - 1):8.1f}")
            print(f"{scenario:20s} {system.noise_ratio:10.2f} |" + "".join(losses))


def rounds_of(
    world: KnownNoise, clients: Clients, system: System, seed: int, fading: bool
) -> Callable[[int, Plan], RoundRecord]:
    """A round on the air: who joins, its updates, and the times it takes them."""
    rng = rng_for(seed, "simulation", 2)

    def round_of(index: int, current: Plan) -> RoundRecord:
        record = next(iter(world.rounds(current.sampling_probability, 1, rng)))
        now = faded(clients, fading_gains(seed, index, len(clients))) if fading else clients
        joined = np.array([p.client for p in record.participants], dtype=np.int64)
        rank = current.sketch_rank.astype(np.float64)
        start = start_seconds(now, system, rank)[joined]
        bits = upload_bits(system, rank[joined])
        if not len(joined):
            return replace(record, round=index)
        share = allocate_bandwidth(start, bits, system.bandwidth_hz, **uplink(now, joined))
        people = tuple(
            replace(
                p, sketch_rank=int(rank[p.client]), start_seconds=float(start[i]),
                upload_bytes=int(bits[i]) // 8, bandwidth_hz=float(share.bandwidth_hz[i]),
                upload_seconds=float(share.round_seconds - start[i]),
                # KnownNoise makes full-rank updates; a sketch of rank k would have kappa times it.
                lora_squared_norm=p.lora_squared_norm * RANK / rank[p.client],
            )
            for i, p in enumerate(record.participants)
        )  # fmt: skip
        extra = sum(p.weight**2 * p.lora_squared_norm * (1 - rank[p.client] / RANK) for p in people)
        total = record.lora_squared_norm + extra
        return replace(record, round=index, participants=people, lora_squared_norm=total)

    return round_of


def hysteresis() -> None:
    """Switches and wandering of the plan on a stationary population, by threshold."""
    print("100 clients, first guess of the ratio 5 times too small, renewal every 10 rounds")
    print("switches: in rounds 1-100, in 101-300; wander: mean |d ln q| a renewal in 101-300;")
    print("loss: true objective over the best, %, of the first and of the last plan")
    print("scenario             fading threshold | early  late  wander | loss before, after")
    for scenario in ("cell-balanced", "cell-link-bound"):
        real, system, world = population(100, scenario, 0.5)
        for threshold, fading in [
            *((t, True) for t in (0.0, 0.005, 0.01, 0.02, 0.05)),
            (0.02, False),
        ]:
            clients = mean_faded(real) if fading else real
            guess = replace(system, noise_ratio=system.noise_ratio / 5)
            profile = {**clients.columns(), "update_second_moment": np.ones(100)}
            flat = Clients.from_columns(**profile)
            first = plan(flat, guess)
            best = expected_seconds(plan(clients, system), clients, system)
            rows = []
            for seed in range(3):
                renewal = renew_every(plan, flat, guess, every=10, threshold=threshold)
                round_of = rounds_of(world, real, system, seed, fading=fading)
                plans = [first]
                for index in range(300):
                    made, renewal = renewal.after(round_of(index, plans[-1]), plans[-1])
                    plans.append(made)
                q = [p.sampling_probability for p in plans]
                switched = [i for i in range(1, 301) if q[i] is not q[i - 1]]
                late = [i for i in switched if i > 100]
                wander = sum(np.abs(np.log(q[i] / q[i - 1])).mean() for i in late) / 20
                loss = [expected_seconds(p, clients, system) / best - 1 for p in (first, plans[-1])]
                rows.append((len(switched) - len(late), len(late), wander, *loss))
            early, settled, wander, before, after = np.mean(rows, axis=0)
            print(
                f"{scenario:20s} {'yes' if fading else 'no':6s} {threshold:9.3f} | {early:5.1f} "
                f"{settled:5.1f} {wander:7.3f} | {100 * before:6.1f} {100 * after:6.1f}"
            )


def timing() -> None:
    """One warm-started renewal at N = 1,000, and one round's observation; processor seconds."""
    clients, system, world = population(1000, "cell-balanced", 0.02)
    first = plan(clients, system)
    round_of = rounds_of(world, clients, system, 0, fading=False)
    records = [round_of(index, first) for index in range(40)]
    state, a = initial_noise_state(1000), clients.data_weight

    def best_of(count: int, action: Callable[[], object]) -> float:
        times = []
        for _ in range(count):
            start = time.process_time()
            action()
            times.append(time.process_time() - start)
        return min(times)

    for record in records:
        state = observe(state, record, a, RANK)
    seconds_observe = best_of(20, partial(observe, state, records[0], a, RANK))
    seconds_scale = best_of(20, partial(noise_scale, state, a))
    cold = best_of(3, partial(plan, clients, system))

    def warm(threshold: float) -> float:
        renewal = renew_every(plan, clients, system, every=len(records), threshold=threshold)
        for record in records[:-1]:
            _, renewal = renewal.after(record, first)

        renew = partial(renewal.after, records[-1], first)
        seconds = best_of(5, renew)
        _, renewed = renew()
        assert renewed.state.planned == 1 and renewed.state.switched == (threshold < 0.5)
        return seconds

    kept, taken = warm(0.99), warm(0.0)
    mean = first.round_seconds.mean if first.round_seconds else float("nan")
    print(f"N = 1000, {first.sampling_probability.sum():.1f} participants a round on average")
    print(f"observe a round        {1e3 * seconds_observe:9.2f} ms")
    print(f"read the noise scale   {1e3 * seconds_scale:9.2f} ms")
    print(f"plan from scratch      {1e3 * cold:9.1f} ms")
    print(f"renew, plan kept       {1e3 * kept:9.1f} ms")
    print(f"renew, plan taken      {1e3 * taken:9.1f} ms")
    print(
        f"a round (predicted)    {1e3 * mean:9.1f} ms; a renewal is {100 * kept / mean:.2f} % "
        f"of it, {100 * taken / mean:.2f} % where the plan is taken"
    )


TABLES = {
    "estimate": estimate, "pilots": pilots, "doubt": doubt, "hysteresis": hysteresis,
    "time": timing,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("table", nargs="*", choices=[[], *TABLES], default=[])
    for name in parser.parse_args().table or TABLES:
        print(f"\n{name}: {TABLES[name].__doc__}")
        TABLES[name]()


if __name__ == "__main__":
    main()
