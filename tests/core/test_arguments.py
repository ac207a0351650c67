"""Every public function says in one line what it was given and what it takes."""

import numpy as np
import pytest

import fedpace as fp
from fedpace.core.arguments import COUNT, NUMBER, NUMBERS, PATH, TEXTS, takes

CLIENTS = fp.Clients.from_columns(
    data_weight=[1, 1], step_seconds=[0.1, 0.2], spectral_efficiency=[1, 1]
)
THREE = fp.Clients.from_columns(
    data_weight=[1, 1, 1], step_seconds=[0.1, 0.2, 0.3], spectral_efficiency=[1, 1, 1]
)
SYSTEM = fp.System(bandwidth_hz=1e6, lora_rank=4)
CELL = fp.Scenario("cell")
CONSTANTS = fp.BoundConstants(1.0, 1.0, 1.0, 1.0)
BOUND = {"lora_rank": 4, "local_steps": 1, "learning_rate": 0.1, "rounds": 10}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fp.load_experiment(3), r"path is 3, an int; give a path"),
        (lambda: fp.load_experiment(None, "seed=1"), r"overrides is 'seed=1', a str; give a list"),
        (lambda: fp.plan("clients.csv", SYSTEM), "client 0 is 'c'; give Clients"),
        (lambda: fp.plan(CLIENTS, {}), r"plan\(\): system is {}, a dict; give a System"),
        (lambda: fp.plan(CLIENTS, SYSTEM, q_min="a"), "q_min is 'a', a str; give a number"),
        (lambda: fp.plan(CLIENTS, SYSTEM, 3), "planner is 3"),
        (lambda: fp.plan(CLIENTS, SYSTEM, start=3), "start is 3, an int; give a Plan"),
        (lambda: fp.round_time(3, CLIENTS, SYSTEM), "give a Plan or a Decision"),
        (lambda: fp.round_time(fp.plan(CLIENTS, SYSTEM), None, SYSTEM), "clients is None"),
        (lambda: fp.draw_clients("cell", [1, 2], 0, SYSTEM), "'cell', a str; give a Scenario"),
        (lambda: fp.draw_clients(CELL, "a", 0, SYSTEM), "data_weight is 'a'"),
        (lambda: fp.draw_clients(CELL, [1], -1, SYSTEM), "seed is -1, an int; give a whole number"),
        (lambda: fp.draw_clients(CELL, [1], 0.5, SYSTEM), "seed is 0.5"),
        (lambda: fp.draw_clients(CELL, [1], True, SYSTEM), "seed is True"),
        (lambda: fp.allocate_bandwidth("a", [1], 1e6, snr_hz=1.0), "start_seconds is 'a'"),
        (lambda: fp.allocate_bandwidth([[1], [1, 2]], [1], 1e6, snr_hz=1.0), "start_seconds"),
        (lambda: fp.allocate_bandwidth([1], [1], "x", snr_hz=1.0), "total_hz is 'x'"),
        (lambda: fp.allocate_bandwidth([1], [1], 1e6, snr_hz=1.0, rule=[]), "rule is"),
        (lambda: fp.System(bandwidth_hz="1e6", lora_rank=4), "bandwidth_hz is '1e6', a str"),
        (lambda: fp.System(bandwidth_hz=1e6, lora_rank=None), "lora_rank is None"),
        (lambda: fp.Scenario("x", cell_radius_km="2"), "cell_radius_km is '2'"),
        (lambda: fp.Scenario(3), "name is 3"),
        (lambda: fp.BoundConstants("a", 1, 1, 1), "smoothness is 'a'"),
        (lambda: fp.BoundConstants(1, None, 1, 1), "heterogeneity is None"),
        (lambda: fp.convergence_bound([0.5], [4], [1], None, **BOUND), "constants is None"),
        (lambda: fp.convergence_bound("a", [4], [1], CONSTANTS, **BOUND), "sampling_probability"),
        (lambda: fp.Clients.from_columns(data_weight="a", step_seconds=[1], snr_hz=[1]), "weight"),
        (lambda: fp.sketch_named(3), "sketch 3 is unknown"),
        (lambda: fp.Clients.from_profiles(3), "profiles is 3; give a list of ClientProfile"),
        (
            lambda: fp.round_time(fp.plan(CLIENTS, SYSTEM), THREE, SYSTEM),
            r"the plan is for 2 clients, clients has 3; give the clients that it was made for",
        ),
        *(
            (
                lambda rule=rule: fp.allocate_bandwidth(
                    [0, 1], [1e308, 1.0], 1e-300, spectral_efficiency=1e-300, rule=rule
                ),
                r"finish_seconds\[0\] is (inf|nan); it must be a number; give fewer upload_bits",
            )
            for rule in ("work-conserving", "equal-finish", "equal-share")
        ),
        (lambda: fp.plan(CLIENTS, SYSTEM, "uniform", cohort=10**400), r"^cohort is .{0,99}; give"),
        (lambda: fp.Experiment(seed="a"), "seed = 'a': it takes a whole number"),
        (lambda: fp.Experiment(sed=1), "unknown key sed; known are seed, methods"),
        (
            lambda: fp.Experiment(training={"rounds": 0}),
            r"\[training\] rounds = 0: it takes 1 or more",
        ),
        (lambda: fp.Experiment(training=3), "training = 3: "),
        (lambda: fp.Experiment(methods=[]), r"methods = \[\]: it takes at least one"),
    ],
)
def test_a_wrong_argument_is_named_with_what_is_taken(call, message):
    with pytest.raises(fp.InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.torch
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: fp.run("e.toml"),
            r"is 'e.toml', a str; give an Experiment, as fedpace.load_experiment",
        ),
        (lambda: fp.run(None), "experiment is None"),
        (
            lambda: fp.run(fp.load_experiment().model_copy(update={"seed": "a"})),
            "experiment: seed = 'a': it takes a whole number",
        ),
        (lambda: fp.run(fp.load_experiment(), out=3), "out is 3"),
        (lambda: fp.resume(None), "folder is None"),
        (lambda: fp.resume("x", experiment="e.toml"), "give an Experiment"),
    ],
)
def test_so_do_those_that_need_torch(call, message, tmp_path, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(fp.InputError, match=message):
        call()
    assert list(tmp_path.iterdir()) == []


def test_a_path_may_be_a_text(tmp_path, monkeypatch):
    (tmp_path / "my.toml").write_text("seed = 7")
    monkeypatch.chdir(tmp_path)
    assert fp.load_experiment("my.toml").seed == 7
    with pytest.raises(fp.InputError, match="none.toml does not exist"):
        fp.load_experiment("none.toml")


def test_what_fits_is_passed_on_and_the_function_keeps_its_face():
    @takes(a=NUMBER, b=COUNT, c=NUMBERS, d=PATH, e=TEXTS, f=(int, str))
    def given(a, b, c, d, e, f, g=None):
        """Say it."""
        return a, b, c, d, e, f, g

    right = (np.float32(1.5), np.int64(3), [1, 2], "x", ["y"], 3, object())
    assert given(*right) == right
    assert given.__doc__ == "Say it." and given.__name__ == "given"
