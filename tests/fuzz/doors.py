"""Every door through which content comes in that nobody has checked, and how to knock at it.

A door is a function of a `random.Random` and a folder. It makes one case, enters, and checks what
came in. It may raise a FedPaceError: that is the answer to bad content. Whatever else it raises, a
message of several lines, or more than `SECONDS` is a finding.
"""

import contextlib
import csv
import gzip
import io
import json
import math
import pickle
import signal

import numpy as np
import pytest
import tomli_w

from federation.toy import LAYOUT, random_adapter
from fedpace.core.errors import FedPaceError
from fedpace.data.load import load_data, load_training
from fedpace.engines.codec import decode, encode, form_of
from fedpace.experiment.config import default_experiment, load_experiment
from fedpace.experiment.scenario import load_scenario, plan_scenario, scenario_network
from fedpace.run_folder.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from fedpace.wireless.clients_file import read_clients, write_clients
from fedpace.wireless.fedscale import read_fedscale
from fuzz.mutate import NASTY, mutated, value

SECONDS = 5


class HangError(BaseException):
    """A case took longer than `SECONDS`."""


@contextlib.contextmanager
def limited():
    """Raise HangError in what computes longer than `SECONDS`, whatever else the machine does."""

    def ring(number, frame):
        raise HangError(f"more than {SECONDS} s of computation")

    before = signal.signal(signal.SIGPROF, ring)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def knock(door, random, folder):
    """Try one case.

    Returns:
        "taken" or "refused".

    Raises:
        Exception: what was found.
    """
    try:
        with limited():
            door(random, folder)
    except FedPaceError as error:
        text = str(error)
        assert text.strip() and len(text) < 3000, f"a message of {len(text)} characters"
        assert "\n" not in text, f"a message of several lines: {text!r}"
        return "refused"
    return "taken"


def _keys():
    from fedpace.experiment.config import Scenario

    for name, field in Scenario.model_fields.items():
        inner = getattr(field.annotation, "model_fields", None)
        yield from [f"{name}.{key}" for key in inner] if inner else [name]


KEYS = list(_keys())


def toml_value(random):
    """Return a value in TOML notation, right or wrong."""
    some = value(random, 1)
    if isinstance(some, str) and random.random() < 0.5:
        return some
    if isinstance(some, float):
        return repr(some)
    return json.dumps(some) if not isinstance(some, int) or abs(some) < 10**4000 else str(some)


def experiment_file(random, folder):
    """Mutate the default experiment, or set keys to anything."""
    path = folder / "my.toml"
    text = default_experiment()
    if random.random() < 0.5:
        path.write_bytes(mutated(text.encode(), random))
        overrides = []
    else:
        path.write_text(text)
        count = random.randint(1, 3)
        overrides = [f"{random.choice(KEYS)}={toml_value(random)}" for _ in range(count)]
    experiment = load_experiment(path, overrides)
    again = folder / "again.toml"
    again.write_text(experiment.to_toml(), encoding="utf-8")
    assert load_experiment(again) == experiment


_NUMBERS = [1e-30, 1e-12, 1e-3, 0.1, 0.5, 0.999, 1, 1.5, 2, 10, 1e3, 1e6, 1e9, 1e15, 1e30, 0]
_PLANNED = ("network", "planner", "payload", "training", "lora")


def scenario_file(random, folder):
    """Set the numbers of a small scenario to edges, and plan: chances and ranks are in range."""
    path = folder / "cell.toml"
    table = {"seed": 1, "data": {"clients": 5}, "lora": {"rank": 4}, "network": {}}
    for key in random.sample([k for k in KEYS if k.startswith(_PLANNED)], random.randint(0, 4)):
        section, name = key.split(".")
        if name != "rank":
            some = random.choice(_NUMBERS)
            table.setdefault(section, {})[name] = some
    if "planner" in table and random.random() < 0.5:
        table["planner"]["name"] = random.choice(["exact", "paper", "uniform", "weighted", "full"])
    path.write_text(tomli_w.dumps(table), encoding="utf-8")
    _plans(load_scenario(path))


def _plans(scenario):
    network = scenario_network(scenario)
    made = plan_scenario(scenario, network)
    q, k = made.sampling_probability, made.sketch_rank
    assert np.all(q >= scenario.planner.q_min * (1 - 1e-9)) and np.all(q <= 1), q
    assert np.all(k >= 1) and np.all(k <= network.system.lora_rank), k


_COLUMNS = ["client_id", "data_weight", "step_seconds", "step_seconds_per_rank", "download_seconds",
            "spectral_efficiency", "snr_hz", "max_bandwidth_hz", "max_rank", "availability",
            "update_second_moment", "step_joules", "upload_joules_per_bit",
            "max_joules_per_round"]  # fmt: skip


def clients_file(random, folder):
    """Mutate a clients.csv or fill it with edges; what is read is written and read the same."""
    path = folder / "clients.csv"
    names = ["data_weight", "step_seconds", random.choice(["spectral_efficiency", "snr_hz"])]
    names += random.sample(_COLUMNS, random.randint(0, 3))
    names = list(dict.fromkeys(names))
    rows = [
        [repr(random.choice(_NUMBERS)) if random.random() < 0.9 else random.choice(NASTY)
         for _ in names] for _ in range(random.randint(0, 4))
    ]  # fmt: skip
    text = "\n".join(",".join(row) for row in [names, *rows]) + "\n"
    content = text.encode("utf-8", "surrogatepass")
    path.write_bytes(mutated(content, random) if random.random() < 0.5 else content)
    clients = read_clients(path)
    assert math.isclose(clients.data_weight.sum(), 1) and np.all(clients.data_weight > 0)
    write_clients(clients, folder / "again.csv")
    again = read_clients(folder / "again.csv")
    for name, column in clients.columns().items():
        if column.dtype.kind == "f":
            np.testing.assert_allclose(again.columns()[name], column, rtol=1e-12)
        else:
            assert again.columns()[name].tolist() == column.tolist()


_LABELS = [0, 1, 2, "0", "1", "01", "x", "y", True, 1.0, 0.5, None, "", " ", "True", "1.0", "0.5"]


def data_file(random, folder):
    """Write rows in some format, mutated; what is taken holds text and classes of the right range.

    Where nothing was mutated, every format gives the same examples.
    """
    count = random.randint(0, 12)
    columns = random.choice([("text", "label"), ("text",), ("prompt", "response"),
                             ("text", "text_pair", "label"), ("Text", "label"), ("text", "group"),
                             ("text", "labels"), ("messages",)])  # fmt: skip
    rows = [{name: _cell(name, random, i) for name in columns} for i in range(count)]
    suffix = random.choice(["jsonl", "csv", "txt", "jsonl.gz", "csv.gz", "parquet", "ndjson"])
    path = folder / f"{random.choice(['train', 'data', 'x'])}.{suffix}"
    content = _written(rows, columns, suffix)
    whole = random.random() < 0.3
    if not whole:
        inner = mutated(content, random)
        content = gzip.compress(inner) if suffix.endswith("gz") else inner
        if random.random() < 0.1:
            content = mutated(content, random)
    elif suffix.endswith("gz"):
        content = gzip.compress(content)
    path.write_bytes(content)
    try:
        labels = random.choice([None, ["x", "y"], ["0", "1"]])
        load = random.choice([lambda: load_data(str(path), seed=0)[0],
                              lambda: load_data(str(folder), eval="holdout", seed=0)[0],
                              lambda: load_training(str(path), labels)])  # fmt: skip
        examples = load()
        assert all(isinstance(text, str) and text.strip() for text in examples.text)
        for text in examples.text:
            text.encode("utf-8")
        if examples.label is not None and len(examples.label):
            assert 0 <= examples.label.min() <= examples.label.max() < len(examples.label_names)
    finally:
        path.unlink()


def _cell(name, random, i):
    if name == "label" or name == "labels":
        return random.choice(_LABELS[:3]) if random.random() < 0.9 else random.choice(_LABELS)
    if name == "messages":
        return [{"role": "user", "content": f"question {i}"},
                {"role": "assistant", "content": random.choice(["yes", *NASTY[:9]])}]  # fmt: skip
    if random.random() < 0.9:
        return f"{name} number {i}"
    return random.choice([*NASTY, None, 5, 1.5, [], {"a": 1}])


def _written(rows, columns, suffix):
    if suffix == "parquet":
        pyarrow = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet")
        safe = [{k: str(v).encode("utf-8", "replace").decode() for k, v in r.items()} for r in rows]
        sink = io.BytesIO()
        table = pyarrow.Table.from_pylist(safe or [{c: "a" for c in columns}])
        pyarrow.parquet.write_table(table, sink)
        return sink.getvalue()
    if suffix.startswith("csv"):
        file = io.StringIO()
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
        return file.getvalue().encode("utf-8", "surrogatepass")
    if suffix == "txt":
        text = "\n\n".join(str(v) for row in rows for v in row.values())
        return text.encode("utf-8", "surrogatepass")
    return "\n".join(map(json.dumps, rows)).encode("utf-8", "surrogatepass")


def fedscale_file(random, folder):
    """Mutate a pickle of devices: what is taken is numbers, whatever it would have done."""
    table = {n: {"computation": 10.0 + n, "communication": 900} for n in range(3)}
    if random.random() < 0.3:
        table[random.choice([1, "x"])] = value(random, 3)
    path = folder / "client_device_capacity"
    path.write_bytes(mutated(pickle.dumps(table, random.randint(0, 5)), random))
    clients = read_fedscale(path)
    assert np.all(clients.step_seconds > 0) and np.all(np.isfinite(clients.max_bandwidth_hz))


def update_message(random, folder):
    """Mutate an update as bytes; what is decoded has the shapes and types that were to come."""
    rank, kind = random.randint(1, LAYOUT.rank), random.choice([np.float32, np.uint16, np.int8])
    values = {}
    for t in LAYOUT.tensors:
        shape = tuple(rank if axis == t.rank_axis else n for axis, n in enumerate(t.shape))
        values[t.name] = np.resize(random_adapter(3)[t.name], shape).astype(kind)
    form = form_of(values, LAYOUT)
    sent = encode(values, LAYOUT)
    received = mutated(sent, random)
    found = decode(received, LAYOUT, form)
    assert {n: (x.shape, x.dtype) for n, x in found.items()} == dict(form.arrays)
    if received == sent:
        assert all(np.array_equal(found[name], value) for name, value in values.items())


def _checkpoint(seed):
    arrays = {"w": np.arange(6, dtype=np.float32) + seed}
    return Checkpoint(arrays, {}, {}, state={"round": seed, "name": "é"})


def checkpoint(random, folder):
    """Damage the newest of two checkpoints: the answer is one of the two, whole, or an error."""
    for seed in (1, 2):
        write_checkpoint(folder, "m", _checkpoint(seed))
    for path in sorted((folder / "checkpoint").glob("*.safetensors")):
        if random.random() < 0.7:
            path.write_bytes(mutated(path.read_bytes(), random))
    try:
        found = read_checkpoint(folder, "m")
    finally:
        for path in (folder / "checkpoint").iterdir():
            path.unlink()
    if found is not None:
        seed = found.state["round"]
        [arrays] = [part for part in (found.adapter,) if part]
        assert seed in (1, 2) and found.state == {"round": seed, "name": "é"}
        assert arrays["w"].tolist() == (np.arange(6) + seed).tolist()


DOORS = {
    "experiment file": experiment_file,
    "clients file": clients_file,
    "data file": data_file,
    "device file of FedScale": fedscale_file,
    "update message": update_message,
    "checkpoint": checkpoint,
}
"""Doors that take about a millisecond a case."""
