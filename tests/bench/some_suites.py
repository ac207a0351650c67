"""The suites of the repository, also where their data is not there."""

from pathlib import Path

from fedpace.bench.suite import Suite
from fedpace.experiment.parsing import parse
from fedpace.experiment.toml_files import read_toml

SUITES = Path(__file__).parents[2] / "benchmarks" / "suites"


def suite_named(name):
    path = SUITES / f"{name}.toml"
    return parse(Suite, read_toml(path), str(path))
