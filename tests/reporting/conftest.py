"""A synthetic run folder: what `fedpace run` would write, with invented but plausible numbers."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from fedpace.core.plan import Decision, Plan, RoundSeconds
from fedpace.core.record import ParticipantRecord, RoundRecord
from fedpace.core.target import Target
from fedpace.reporting.metrics import speedups, summarise
from fedpace.reporting.report import write_report

BITS_PER_RANK, BAND_HZ, RANK = 4e5, 2e6, 16


def write_run(
    folder: Path,
    *,
    clients: int = 40,
    rounds: int = 60,
    target: str | None = "accuracy>=0.6",
    methods: tuple[str, ...] = ("adaptive", "uniform", "proportional"),
    speed: dict[str, float] | None = None,
    renew: bool = True,
    prefix: str = "phone-",
) -> Path:
    """Write a run folder; `speed` scales how fast a method learns per round."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(3)
    weight = rng.lognormal(0, 0.6, clients)
    weight /= weight.sum()
    start = 6 * rng.lognormal(0, 0.9, clients)
    efficiency = rng.lognormal(0.5, 0.7, clients)
    ids = np.array([f"{prefix}{n:02d}" for n in range(clients)])
    goal = None if target is None else Target.parse(target)
    plans, records, entries = {}, [], {}
    for m, name in enumerate(methods):
        plan = _plan(name, ids, weight, start, efficiency)
        renewals = [(rounds // 2, _plan(name, ids, weight, start * 1.1, efficiency))]
        in_force = [(0, plan), *(renewals if renew and m == 0 else [])]
        own = _records(
            name, in_force, rounds, start, efficiency, weight, (speed or {}).get(name, 1.0), goal, m
        )
        initial = {"loss": 2.48, "accuracy": 0.083}
        plans[name] = plan.to_json() | {
            "renewals": [{"round": i, "plan": p.to_json()} for i, p in in_force[1:]]
        }
        records += own
        entries[name] = summarise(own, in_force, goal, initial)
    summary = {
        "methods": entries,
        "speedup": speedups({n: e["time_to_target_seconds"] for n, e in entries.items()}),
        "target": target,
        "environment": {"fedpace": "0.1.0", "python": "3.11.7", "numpy": "2.4.6", "torch": "2.13.0",
                        "platform": "Linux-6.18-x86_64"},
    }  # fmt: skip
    (folder / "experiment.toml").write_text(
        f'seed = 0\nmethods = {json.dumps(list(methods))}\n\n[model]\nname = "minilm"\n'
        f"\n[lora]\nrank = {RANK}\n\n[training]\nrounds = {rounds}\neval_every = 2\n"
    )
    with (folder / "clients.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["client_id", "data_weight", "step_seconds", "spectral_efficiency", "max_rank"]
        )
        writer.writerows(
            [i, float(w), float(s) / 5, float(e), "inf"]
            for i, w, s, e in zip(ids, weight, start, efficiency)
        )
    links = {
        "start_seconds": start.tolist(),
        "upload_seconds": (RANK * BITS_PER_RANK / efficiency / BAND_HZ).tolist(),
    }
    (folder / "plan.json").write_text(json.dumps({"clients": links, "methods": plans}))
    (folder / "summary.json").write_text(json.dumps(summary))
    lines = [json.dumps(record.to_json()) + "\n" for record in records]
    (folder / "rounds.jsonl").write_text("".join(lines))
    return folder


def _plan(name, ids, weight, start, efficiency):
    upload = RANK * BITS_PER_RANK / efficiency / BAND_HZ
    rank = np.full(len(ids), RANK)
    if name == "uniform":
        q = np.full(len(ids), 0.2)
    elif name == "proportional":
        q = np.minimum(1, 0.2 * weight * len(ids))
    else:
        q = np.clip(16 * weight / np.sqrt(0.2 * start + upload), 0.01, 1)
        rank = np.clip(np.round(RANK / (0.8 + upload / 4)), 2, RANK).astype(int)
    rng, bits = np.random.default_rng(5), BITS_PER_RANK * rank
    draws = [np.flatnonzero(rng.random(len(ids)) < q) for _ in range(min(200, 4 * len(ids)))]
    times = [_finish(start[s], (bits / efficiency)[s]) + 0.5 for s in draws]
    seconds = RoundSeconds(float(np.mean(times)), *map(float, np.quantile(times, [0.5, 0.95])))
    return Plan(name, ids, Decision(q, rank), verdict="converged", round_seconds=seconds)


def _records(name, plans, rounds, start, efficiency, weight, speed, goal, m):
    rng = np.random.default_rng(10 + m)
    clock, progress, records = 0.0, 0.0, []
    for i in range(rounds):
        plan = [p for first, p in plans if first <= i][-1]
        joined = np.flatnonzero(rng.random(len(plan)) < plan.sampling_probability)
        bits = BITS_PER_RANK * plan.sketch_rank[joined]
        finish = _finish(start[joined], bits / efficiency[joined])
        people = tuple(
            ParticipantRecord(
                client=int(n), sketch_rank=int(plan.sketch_rank[n]),
                weight=float(weight[n] / plan.sampling_probability[n]), download_bytes=800_000,
                upload_bytes=int(b / 8), start_seconds=float(start[n]),
                upload_seconds=float(finish - start[n]), bandwidth_hz=1e5, train_loss=1.0,
                lora_squared_norm=0.1, head_squared_norm=0.2,
            )
            for n, b in zip(joined, bits)
        )  # fmt: skip
        clock += finish + 0.5
        progress += speed * min(1.0, float(weight[joined].sum()) * 4)
        accuracy = 0.67 - 0.58 * np.exp(-progress / 14) + 0.006 * rng.standard_normal()
        evaluation = {"loss": float(2.6 * (1 - accuracy)), "accuracy": float(accuracy)}
        record = RoundRecord(
            method=name, round=i, clock_seconds=clock, round_seconds=finish + 0.5,
            participants=people, upload_bits=8 * sum(p.upload_bytes for p in people),
            download_bits=8 * sum(p.download_bytes for p in people),
            train_loss=1.0 if people else None, lora_squared_norm=0.1, head_squared_norm=0.1,
            evaluation=evaluation if i % 2 else None,
        )  # fmt: skip
        records.append(record)
        if goal is not None and record.evaluation and goal.reached(record.evaluation):
            break
    return records


def _finish(start, demand):
    """Everyone finishes together; by bisection."""
    if not len(start):
        return 0.0
    low, high = start.max(), start.max() + demand.sum() / BAND_HZ
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if np.sum(demand / (middle - start)) > BAND_HZ else (low, middle)
    return float(high)


@pytest.fixture(name="write_run", scope="session")
def _write_run():
    return write_run


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory):
    """A finished run with its report; tests only read it."""
    folder = write_run(tmp_path_factory.mktemp("run"))
    write_report(folder)
    return folder
