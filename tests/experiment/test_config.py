import tomllib
from pathlib import Path

import pytest

from fedpace.core.errors import InputError
from fedpace.experiment.config import (
    Experiment,
    Scenario,
    default_experiment,
    load_experiment,
    parse,
)
from fedpace.experiment.keys import keys_table


def write(tmp_path, text):
    path = tmp_path / "my.toml"
    path.write_text(text)
    return path


def test_the_embedded_default_loads_and_is_what_runs_without_a_file():
    assert load_experiment(None) == parse(Experiment, tomllib.loads(default_experiment()), "x")


def test_every_shipped_toml_loads():
    root = Path(__file__).parents[2]
    for path in root.glob("examples/*.toml"):  # the suites of benchmarks are read in tests/bench
        table = tomllib.loads(path.read_text())
        model = Scenario if "payload" in table else Experiment
        parse(model, table, str(path))


def test_an_empty_file_is_a_complete_experiment(tmp_path):
    assert load_experiment(write(tmp_path, "")) == Experiment()


def test_an_experiment_survives_being_written():
    experiment = load_experiment(None, ["seed=3", "data.eval=test"])
    assert parse(Experiment, tomllib.loads(experiment.to_toml()), "x") == experiment


def test_overrides_take_toml_values_and_plain_words():
    experiment = load_experiment(
        None, ["training.rounds=7", "model.name=gpt2", 'lora.target_modules=["q"]', "seed=5"]
    )
    assert (experiment.training.rounds, experiment.model.name) == (7, "gpt2")
    assert (experiment.lora.target_modules, experiment.seed) == (["q"], 5)


def test_paths_count_from_the_experiments_folder_and_hub_ids_stay(tmp_path):
    (tmp_path / "mine.jsonl").write_text("{}")
    text = '[data]\nname = "mine.jsonl"\n[model]\nname = "org/model"'
    experiment = load_experiment(write(tmp_path, text))
    assert experiment.data.name == str(tmp_path / "mine.jsonl")
    assert experiment.model.name == "org/model"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[lora]\nrank = 0", "[lora] rank = 0: it takes 1 or more"),
        ("[planner]\nnoise_ratio = 1e-40", "[planner] noise_ratio = 1e-40: it takes 0, or 1e-30"),
        ("[planner]\np95_limit_seconds = inf", "[planner] p95_limit_seconds = inf: it takes a"),
        ("[training]\ntarget = 'f1>=1'", "[training] target: target is 'f1>=1'; write"),
        ("[training]\nround = 3", "unknown key [training] round; known are local_steps"),
        ("[trainig]\nrounds = 3", "unknown key trainig; known are seed"),
        ('[training]\nrounds = "3"', "[training] rounds = '3': it takes a whole number"),
        ("[training]\nrounds = 0", "[training] rounds = 0"),
        ("[training]\nrounds = true", "[training] rounds = True"),
        ("[network]\nbandwidth_hz = 0", "[network] bandwidth_hz = 0"),
        ("[network]\nbandwidth_hz = nan", "[network] bandwidth_hz = nan"),
        ('[lora]\nsketch = "random"', "[lora] sketch = 'random': it takes 'scaled' or"),
        ("[lora]\ntarget_modules = [1]", "[lora] target_modules"),
        ("[lora]\nuse_dora = true", "[lora] use_dora is refused: DoRA's magnitudes"),
        ("[lora]\nlora_dropout = 0.1", "[lora] lora_dropout is refused: it is called dropout"),
        ("[lora]\ndropout = 1.0", "[lora] dropout"),
        ("[lora]\ninit_lora_weights = 3", "[lora] init_lora_weights = 3: "),
        ("training = 3", "training = 3: it takes a table of keys"),
        ("methods = [3]", "methods item 1 = 3: it takes a text in quotes"),
        ("[planner]\nq_min = 2", "[planner] q_min = 2: it takes 1 at most"),
        ('[data]\nname = ""', "[data] name = '': it takes a text that is not empty"),
        ('[output]\nmlflow = "yes"', "[output] mlflow = 'yes': it takes true or false"),
        ("seed = -1", "seed = -1"),
        (
            "[training]\nbeat_seconds = 0.0",
            "beat_seconds = 0.0: it takes 1e-30 or more",
        ),
        (
            "[network]\ngain_db = 1e31",
            "gain_db = 1e+31: it takes 1e+30 at most",
        ),
        ("[checks]\nnorm_factor = 0.5", "[checks] norm_factor = 0.5: it takes 1 or more"),
        ("[checks]\nnorm_factor = nan", "[checks] norm_factor = nan"),
        ("[checks]\nnorm_cap = 0.0", "[checks] norm_cap = 0.0"),
        ("[checks]\nstrikes = 0", "[checks] strikes = 0"),
        ("[checks]\nstrike = 3", "unknown key [checks] strike; known are norm_factor, norm_cap"),
        ("[privacy]\nclip_norm = 1.0", "clip_norm needs noise_multiplier and delta too; set all"),
        ("[privacy]\nmax_epsilon = 0", "[privacy] max_epsilon = 0"),
        ("seed = ", "is not valid TOML"),
    ],
)
def test_a_mistake_is_told_in_one_line_with_its_place(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(InputError) as caught:
        load_experiment(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_file_a_folder_and_a_binary_are_told_apart(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        load_experiment(tmp_path / "no.toml")
    with pytest.raises(InputError, match="is a folder"):
        load_experiment(tmp_path)
    (tmp_path / "b.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="UTF-8"):
        load_experiment(tmp_path / "b.toml")


@pytest.mark.parametrize("override", ["rounds", "a.b.c=1", "=3", "training.=1", "seed.x=1"])
def test_a_malformed_override_is_refused(override):
    with pytest.raises(InputError, match="--set"):
        load_experiment(None, [override])


def test_the_docs_list_every_key():
    """Paste what `fedpace.experiment.keys.keys_table()` returns where this fails."""
    page = (Path(__file__).parents[2] / "docs" / "file-formats.md").read_text()
    listed = page.split("<!-- keys: begin -->")[1].split("<!-- keys: end -->")[0].strip()
    assert listed == keys_table()
