"""[checks] of the experiment file: what a server over the network is as strict as, and no other."""

import numpy as np
import pytest

pytest.importorskip("flwr")
pytest.importorskip("torch")

import fedpace as fp
from deploy.in_memory import run_in_memory
from fedpace.core.errors import RunError
from fedpace.experiment.config import ChecksSection, load_experiment
from fedpace.federation.checks import Checks
from fedpace.run_folder.reader import read_records

pytestmark = [pytest.mark.torch, pytest.mark.flower]


def test_the_defaults_are_those_of_the_checks():
    section, checks = ChecksSection(), Checks()
    for name in ("norm_factor", "window", "strikes"):
        assert getattr(section, name) == getattr(checks, name)
    assert section.norm_cap is None and checks.norm_cap == np.inf


def test_an_update_above_the_cap_is_refused_and_a_run_with_nobody_left_ends(tmp_path):
    strict = "checks.norm_cap=1e-9", "checks.strikes=2"
    with pytest.raises(RunError, match="round 3: all 2 clients are excluded"):
        run_in_memory(tmp_path, *strict, clients=2, rounds=4)
    [folder] = {path.parent for path in tmp_path.rglob("rounds.jsonl")}
    records = read_records(folder)
    assert [len(r.refusals) for r in records] == [2, 2]
    assert [r.excluded for r in records] == [(), (0, 1)]
    assert all("the limit 1e-09" in reason for r in records for _, reason in r.refusals)
    # In one process the section changes nothing.
    local = [
        fp.run(load_experiment(tmp_path / "my.toml", given), out=tmp_path / name)
        for name, given in (("strict", strict), ("plain", ()))
    ]
    one, two = ([r.to_json() for r in done.records] for done in local)
    assert one == two and all(r.participants for r in local[0].records)


def test_who_claims_many_examples_is_believed_as_far_as_the_section_says(tmp_path):
    from engines.fake_grid import FakeGrid
    from federation.toy import LAYOUT
    from fedpace.deploy.population import first_population
    from fedpace.engines.flower.client import make_client_app
    from fedpace.engines.flower.roster import Roster

    claims = {1: ("a", 100), 2: ("b", 100), 3: ("c", 10_000)}

    def app(name, examples):
        return make_client_app(lambda offer, context: {"name": name, "examples": examples}, None)

    roster = Roster(FakeGrid({node: app(*claim) for node, claim in claims.items()}), {"run": "r"})
    roster.poll()
    roster.poll()
    roster.begin()
    for factor, believed in (("10.0", 1000), ("2.0", 200), ("inf", 10_000)):
        given = f"checks.examples_factor={factor}", "checks.most_weight=1.0"
        experiment = load_experiment(None, given)
        network = first_population(experiment, LAYOUT, roster)
        weights = np.array([100, 100, believed])
        np.testing.assert_allclose(network.clients.data_weight, weights / weights.sum())
