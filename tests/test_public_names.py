import subprocess
import sys

import pytest

import fedpace

NEED_TORCH = ("RunRecord", "resume", "run")


def test_the_public_names_are_sorted_and_all_there():
    assert fedpace.__all__ == sorted(fedpace.__all__)
    assert dir(fedpace) == fedpace.__all__


@pytest.mark.parametrize("name", [n for n in fedpace.__all__ if n not in NEED_TORCH])
def test_every_public_name_exists_and_is_documented(name):
    assert getattr(fedpace, name).__doc__


@pytest.mark.torch
@pytest.mark.parametrize("name", NEED_TORCH)
def test_the_names_that_need_torch_are_there_too(name):
    pytest.importorskip("torch")
    assert getattr(fedpace, name).__doc__


def test_the_names_and_their_homes_are_the_same():
    assert sorted(name for names in fedpace._HOMES.values() for name in names) == fedpace.__all__


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        fedpace.nothing  # noqa: B018


def test_importing_the_package_alone_loads_nothing():
    code = "import sys, fedpace; print('numpy' in sys.modules, 'pydantic' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_planning_loads_no_framework():
    modules = ["planning.planner", "experiment.config", "experiment.scenario", "cli"]
    code = (
        f"import sys, {', '.join(f'fedpace.{module}' for module in modules)}\n"
        "heavy = {'torch', 'transformers', 'peft', 'datasets', 'flwr', 'ray', 'matplotlib'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
