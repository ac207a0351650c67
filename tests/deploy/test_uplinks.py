"""What the server learns of its clients' uplinks, held against the rates that they were given."""

import json
from contextlib import ExitStack

import numpy as np
import pytest

pytest.importorskip("flwr")
pytest.importorskip("torch")

from deploy.fleet import Fleet, end
from fedpace.deploy.tcp_relay import open_relay
from fedpace.wireless.clients_file import read_clients
from tiny import EXPERIMENT, write_model

pytestmark = [pytest.mark.long, pytest.mark.slow, pytest.mark.flower]
RATES_MBPS = (0.5, 1.0, 2.0, 4.5)
ROUNDS = 12
WIDE = EXPERIMENT.replace("rank = 4", 'rank = 32\nupload_dtype = "float32"').replace("1e5", "4e6")
"""Messages of 330 kB each way, with a model of width 256."""


def test_learned_uplinks_are_the_rates_that_were_set(tmp_path):
    """Only the way up is slow, as it is on the air: nothing of it may be booked as download."""
    with Fleet(tmp_path, clients=4, rounds=ROUNDS, text=WIDE) as fleet, ExitStack() as stack:
        write_model(tmp_path / "model", width=256)
        fleet.serve(fleet.experiment, "--out", "run", "--clients", 4)
        fleet.wait_for("server", "listening")
        for n, rate in enumerate(RATES_MBPS):
            relay = stack.enter_context(open_relay("127.0.0.1", fleet.port))
            relay.pace(rate * 1e6)
            fleet.join(n, port=relay.port)
        end(fleet.running[0], 600)
    lines = (tmp_path / "run" / "rounds.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    found, bands = [[] for _ in RATES_MBPS], [[] for _ in RATES_MBPS]
    for record in records[1:]:
        for p in record["participants"]:
            found[p["client"]].append(p["upload_seconds"] / (8e-6 * p["upload_bytes"]))
            bands[p["client"]].append(p["bandwidth_hz"])
    learned = read_clients(tmp_path / "run" / "estimates.csv").spectral_efficiency
    for n, rate in enumerate(RATES_MBPS):
        seen, told = 1 / np.mean(found[n]), 1e-6 * learned[n] * np.mean(bands[n])
        print(f"set {rate} Mbit/s: seen {seen:.2f}, learned {told:.2f}")
        assert seen == pytest.approx(rate, rel=0.15)
        assert told == pytest.approx(rate, rel=0.2)
