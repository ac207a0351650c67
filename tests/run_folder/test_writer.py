"""What a run writes of its clients is what a plan of them says."""

import json
from dataclasses import replace

import numpy as np
import pytest

from fedpace.core.profile import Clients, System
from fedpace.experiment.scenario import plan_table
from fedpace.planning.planner import plan
from fedpace.run_folder.writer import write_plans
from fedpace.wireless.latency import upload_alone_seconds
from fedpace.wireless.network import Network, planning_clients

SYSTEM = System(bandwidth_hz=1e5, lora_rank=4, fixed_bits=1e3, bits_per_rank=2e3)


@pytest.mark.parametrize("fading", [False, True])
def test_seconds_to_send_alone_are_those_of_the_plan(tmp_path, fading):
    clients = Clients.from_columns(
        data_weight=[1, 1], step_seconds=[0.1, 0.2], spectral_efficiency=[4, 0.5]
    )
    network = Network(clients, replace(SYSTEM, fading=fading))
    made = plan(clients, SYSTEM, "full")
    write_plans(tmp_path, network, {"full": [(0, made)]})
    written = json.loads((tmp_path / "plan.json").read_text())["clients"]["upload_seconds"]
    shown = list(plan_table(made, network).columns[3].cells)
    assert [f"{seconds:.3g}" for seconds in written] == shown
    still = upload_alone_seconds(clients, network.system, np.full(2, 4.0))
    assert (np.array(written) > 1.05 * still).all() == fading
    seen = upload_alone_seconds(planning_clients(network), network.system, np.full(2, 4.0))
    assert written == seen.tolist()
