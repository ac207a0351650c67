"""Tiny random models of several architectures, saved as `save_pretrained` leaves them."""

import importlib.util

import pytest

collect_ignore_glob = [] if importlib.util.find_spec("peft") else ["test_*.py"]

if not collect_ignore_glob:
    from lora import tiny_models


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Returns the folder of a tiny model by its architecture; made on first use."""
    made = {}

    def get(architecture):
        if architecture not in made:
            made[architecture] = tmp_path_factory.mktemp(architecture)
            tiny_models.write(architecture, made[architecture])
        return str(made[architecture])

    return get
