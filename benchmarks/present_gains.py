"""Links that change within a round: does it pay to serve those first who stand well just now?

    OMP_NUM_THREADS=1 python benchmarks/present_gains.py [--rounds 40]

Rounds of a fifth of 60 clients on two populations, their links Gauss-Markov: the coefficient of
variation that 19 real users had (0.40 in the median, 1.7 dB), and twice as many decibels; gains
that last for a hundredth, a tenth and the whole of the mean upload alone in the band. The mean
round of first come, first served over that of the best link against its own average, on the same
rounds and links.
"""

import argparse

import numpy as np

from fedpace.core.profile import System
from fedpace.core.rng import rng_for
from fedpace.planning.round_time.upper_bound import solo_seconds
from fedpace.wireless.gains import MarkovGains
from fedpace.wireless.latency import start_seconds, upload_bits
from fedpace.wireless.population import draw_clients, scenario_named
from fedpace.wireless.service import Sending, serve_changing

COUNT, COHORT, RANK = 60, 12, 16


def gain(scenario: str, deviation_db: float, part: float, rounds: int) -> tuple[float, float]:
    """Mean round of first come over that of best first, and its standard error."""
    named = scenario_named(scenario)
    system = System(
        bandwidth_hz=named.bandwidth_hz, lora_rank=RANK, fixed_bits=4e6, bits_per_rank=1e6,
        allocation="work-conserving",
    )  # fmt: skip
    clients = draw_clients(named, np.ones(COUNT), 0, system)
    rank = np.full(COUNT, float(RANK))
    start, bits = start_seconds(clients, system, rank), upload_bits(system, rank)
    alone = float(np.mean(solo_seconds(clients, system, rank) - start))
    gains = MarkovGains(1, COUNT, deviation_db, max(part * COHORT * alone, 1e-6))
    now, taken = 0.0, []
    for index in range(rounds):
        joined = rng_for(2, "simulation", index).choice(COUNT, COHORT, replace=False)
        sendings = [Sending(int(n), now + float(start[n]), float(bits[n])) for n in joined]
        ends = [
            serve_changing(
                sendings, clients, gains, system.bandwidth_hz, now=now, until=np.inf,
                arrivals=COHORT, best_first=best_first,
            )[1] - now
            for best_first in (False, True)
        ]  # fmt: skip
        taken.append(ends)
        now += max(ends)
    first, best = np.array(taken).T
    ratio = float(first.mean() / best.mean())
    error = np.std(first - ratio * best, ddof=1) / np.sqrt(rounds) / best.mean()
    return ratio, float(error)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=40)
    arguments = parser.parse_args()
    print("| population | deviation, dB | correlation / uploads of a round | first come / best |")
    print("|---|---:|---:|---:|")
    for scenario in ("cell-balanced", "cell-link-bound"):
        for deviation in (1.7, 3.4):
            for part in (0.02, 0.2, 1.0):
                ratio, error = gain(scenario, deviation, part, arguments.rounds)
                print(f"| {scenario} | {deviation} | {part} | {ratio:.3f} ± {error:.3f} |",
                      flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
