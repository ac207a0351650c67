"""The law of the round time and the three rules, against a kernel that really shapes.

    python benchmarks/testbed_rules.py --scenario cell-balanced --rounds 50 --out rules.jsonl

Linux and root. Sixteen clients drawn from a scenario, in namespaces of their own, send what their
answers have over TCP. The band is scaled so that by the law a round takes --seconds in the mean.
Every round is played by each rule with the same participants, drawn by the exact plan. What is
printed: measured beside computed, by client, for the round, and its mean and 95 % quantile beside
the law's; how far apart clients end under equal finish; the rules' ratios, measured and computed;
goodput against the shaped rate; and how long a live change takes. Fifty rounds of 3 s take nine
minutes, nearly all of it waiting.
"""

import argparse
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from fedpace.core.profile import System
from fedpace.core.rng import rng_for
from fedpace.federation.participation import sample_participants
from fedpace.planning.planner import plan
from fedpace.planning.round_time.distribution import round_time
from fedpace.testbed.shaper import Shaper
from fedpace.testbed.uploads import Uploaders, uploaders
from fedpace.wireless.bandwidth import allocate_bandwidth
from fedpace.wireless.channel import uplink
from fedpace.wireless.latency import start_seconds, upload_bits
from fedpace.wireless.network import Network
from fedpace.wireless.population import draw_clients, scenario_named

RULES = ("equal-finish", "equal-share", "work-conserving")
PAYLOAD = {"fixed_bits": 148e3, "bits_per_rank": 295e3}  # MiniLM, rank 16


def population(name: str, count: int, seed: int, seconds: float) -> tuple[Network, object]:
    """Clients whose rounds take so long in the mean, and the exact plan for them."""
    scenario = replace(scenario_named(name), ratio_cohort=max(1.0, count / 10))
    system = System(
        bandwidth_hz=1.4e6, lora_rank=16, local_steps=4, allocation="equal-finish", **PAYLOAD
    )
    weight = np.exp(0.5 * rng_for(seed, "population", 100).standard_normal(count))
    for _ in range(3):
        clients = draw_clients(scenario, weight, seed, system)
        made = plan(clients, replace(system, overhead_seconds=0.1 * seconds))
        mean = round_time(made, clients, system).mean
        system = replace(system, bandwidth_hz=system.bandwidth_hz * mean / seconds)
    clients = draw_clients(scenario, weight, seed, system)
    made = plan(clients, replace(system, overhead_seconds=0.1 * seconds))
    return Network(clients, system), made


def computed(network: Network, rule: str, who: np.ndarray, start: np.ndarray, bits: np.ndarray):
    """When each ends by the rule, s, and its rate while it sends, bit/s."""
    clients, band = network.clients, network.system.bandwidth_hz
    share = allocate_bandwidth(start, bits, band, **uplink(clients, who), rule=rule)
    return share.finish_seconds, bits / (share.finish_seconds - start)


def play(
    made: Uploaders, network: Network, drawn: object, seed: int, rounds: int, out: Path | None
) -> list[dict]:
    """Play every round by every rule; returns a row for each."""
    clients, system = network.clients, network.system
    shapers = {
        rule: Shaper(
            made.classes, replace(network, system=replace(system, allocation=rule)), seed
        )
        for rule in RULES
    }  # fmt: skip
    rows, index = [], 0
    while len(rows) < rounds * len(RULES):
        who = sample_participants(drawn, index, seed).client
        index += 1
        if not len(who):
            continue
        rank = drawn.sketch_rank[who]
        every = np.ones(len(clients))
        every[who] = rank
        start = start_seconds(clients, system, every)[who]
        bits = 8.0 * np.round(upload_bits(system, rank) / 8)
        for rule in RULES:
            ends, rates = computed(network, rule, who, start, bits)
            passages = made.round(shapers[rule], index, who, start, (bits / 8).astype(int), rates)
            seen = np.array([p.arrived_at - p.assigned_at for p in passages])
            sending = np.array([p.sent_at - p.sending_at for p in passages])
            wire = np.array([p.wire_bytes for p in passages])
            row = {
                "round": index, "rule": rule, "client": who.tolist(),
                "computed_finish": ends.tolist(), "measured_finish": seen.tolist(),
                "rate_bps": rates.tolist(),
                "goodput_bps": (bits / sending).tolist(),
                "wire_ratio": (8 * wire / bits).tolist(),
            }  # fmt: skip
            rows.append(row)
            if out is not None:
                with out.open("a") as file:
                    file.write(json.dumps(row) + "\n")
    for shaper in shapers.values():
        rows[-1].setdefault("changes", []).extend(shaper.changes)
    return rows


def tell(rows: list[dict], law: object) -> None:
    """Print what came out."""
    seconds = {}
    for rule in RULES:
        mine = [row for row in rows if row["rule"] == rule]
        seen = np.array([max(row["measured_finish"]) for row in mine])
        calculated = np.array([max(row["computed_finish"]) for row in mine])
        seconds[rule] = seen.mean(), calculated.mean()
        error = np.abs(seen / calculated - 1)
        by_client = np.concatenate(
            [np.abs(np.array(r["measured_finish"]) / np.array(r["computed_finish"]) - 1)
             for r in mine]
        )  # fmt: skip
        print(f"{rule}: {len(mine)} rounds, mean {seen.mean():.3f} s (computed "
              f"{calculated.mean():.3f}), p95 {np.quantile(seen, 0.95):.3f} "
              f"({np.quantile(calculated, 0.95):.3f}); error of a round: median "
              f"{np.median(error):.2%}, p95 {np.quantile(error, 0.95):.2%}; of a client: median "
              f"{np.median(by_client):.2%}")  # fmt: skip
        if rule == "equal-finish":
            spread = [np.ptp(r["measured_finish"]) / max(r["measured_finish"])
                      for r in mine if len(r["client"]) > 1]  # fmt: skip
            print(f"  law: mean {law.mean:.3f} s, p95 {law.quantile(0.95):.3f} s; spread of ends: "
                  f"median {np.median(spread):.2%}, most {max(spread):.2%}")  # fmt: skip
        if rule != "work-conserving":
            ratio = np.concatenate([np.array(r["goodput_bps"]) / np.array(r["rate_bps"])
                                    for r in mine])  # fmt: skip
            wire = np.concatenate([r["wire_ratio"] for r in mine])
            print(f"  payload over its set rate: median {np.median(ratio):.4f}, from "
                  f"{ratio.min():.4f} to {ratio.max():.4f}; frames over payload: "
                  f"{np.median(wire):.4f}")  # fmt: skip
    for one, two in (("equal-share", "equal-finish"), ("equal-finish", "work-conserving"),
                     ("equal-share", "work-conserving")):  # fmt: skip
        seen, calculated = (seconds[one][i] / seconds[two][i] for i in (0, 1))
        print(f"{one} over {two}: measured {seen:.3f}, computed {calculated:.3f}")
    changes = 1e3 * np.array(rows[-1]["changes"])
    print(f"{len(changes)} live changes of all classes: median {np.median(changes):.2f} ms, p95 "
          f"{np.quantile(changes, 0.95):.2f} ms")  # fmt: skip


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenario", default="cell-balanced")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    network, drawn = population(given.scenario, given.clients, given.seed, given.seconds)
    law = round_time(drawn, network.clients, network.system)
    print(
        f"{given.scenario}, {given.clients} clients, band {network.system.bandwidth_hz:.4g} Hz, "
        f"{drawn.sampling_probability.sum():.1f} clients a round, load {os.getloadavg()[0]:.1f}"
    )
    with uploaders(given.clients) as made:
        rows = play(made, network, drawn, given.seed, given.rounds, given.out)
    tell(rows, law)


if __name__ == "__main__":
    main()
