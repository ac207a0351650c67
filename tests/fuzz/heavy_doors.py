"""The doors behind which a planner, a model or a run lies: a case takes up to a second."""

import json
import shutil

from fedpace.run_folder.reader import read_records, read_run
from fuzz.doors import scenario_file
from fuzz.mutate import edited, mutated

PLACES = {}
"""What the doors start from, by name."""


def prepare(folder):
    """Make a tiny model and a finished run to start from."""
    from fedpace.experiment.config import load_experiment
    from fedpace.experiment.run import run
    from tiny import write_experiment

    (folder / "given").mkdir()
    path = write_experiment(folder / "given")
    experiment = load_experiment(path, ["training.rounds=2", "planner.replan_every=1"])
    run(experiment, out=folder / "run")
    PLACES["run"], PLACES["model"] = folder / "run", folder / "given" / "model"


def run_folder(random, folder):
    """Edit a file of a finished run: it is read, or the file is named."""
    for path in PLACES["run"].iterdir():
        if path.is_file():
            (folder / path.name).write_bytes(path.read_bytes())
    path = folder / random.choice(["rounds.jsonl", "plan.json", "summary.json", "clients.csv"])
    content = path.read_bytes()
    if path.suffix == ".json" and random.random() < 0.7:
        content = json.dumps(edited(json.loads(content), random)).encode()
    elif path.name == "rounds.jsonl" and random.random() < 0.7:
        lines = content.decode().splitlines()
        at = random.randrange(len(lines))
        lines[at] = json.dumps(edited(json.loads(lines[at]), random))
        content = ("\n".join(lines) + "\n").encode()
    else:
        content = mutated(content, random)
    path.write_bytes(content)
    read_records(folder)
    read_run(folder)


def model_folder(random, folder):
    """Damage a file of a model folder: the model does what it must, or the file is named."""
    import numpy as np

    from fedpace.core.examples import Examples
    from fedpace.lora import attach_adapter, load_base, tokenise
    from fedpace.lora.trial import try_out

    source = folder / "model"
    shutil.copytree(PLACES["model"], source, dirs_exist_ok=True)
    path = random.choice(sorted(source.iterdir()))
    content = path.read_bytes()
    if path.suffix == ".json" and random.random() < 0.6:
        content = json.dumps(edited(json.loads(content), random)).encode()
    else:
        content = mutated(content, random)
    if random.random() < 0.1:
        path.unlink()
    else:
        path.write_bytes(content)
    try:
        base = load_base(str(source), task="classification", num_labels=2, threads=1)
        adapted = attach_adapter(base, rank=2, alpha=2.0)
        texts = tuple(f"w{i} w{2 * i} w{3 * i}" for i in range(1, 6))
        examples = Examples("single", texts, label=np.array([0, 1, 0, 1, 0]))
        try_out(adapted, tokenise(examples, base, max_length=12))
    finally:
        shutil.rmtree(source)


HEAVY = {"scenario file": scenario_file, "run folder": run_folder, "model folder": model_folder}
