import pytest

from fedpace.core.errors import InputError
from fedpace.experiment.config import load_experiment
from fedpace.experiment.scenario import load_scenario


def loaded(folder, text, *overrides, encoding="utf-8"):
    path = folder / "my.toml"
    path.write_text(text, encoding=encoding)
    return load_experiment(path, overrides)


def test_a_byte_order_mark_does_not_matter(tmp_path):
    assert loaded(tmp_path, "seed = 7", encoding="utf-8-sig").seed == 7


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "seed = " + "9" * 5000,
            r"my\.toml cannot be read: an integer of thousands of digits",
        ),
        ("a = 1\nseed = " + "9" * 5000, "digits in line 2; correct it"),
        ("seed = " + "9" * 40, r"my\.toml: seed = 9+: it takes less than \d+"),
        ("seed = " + "[" * 5000, "nested too deeply"),
        ("[data]\nclients = " + "9" * 40, r"\[data\] clients = 9+: it takes \d+ at most"),
        ("[training]\nlearning_rate = " + "9" * 400, r"\[training\] learning_rate = 9+\.\.\.: "),
        ("[training]\nlearning_rate = nan", r"\[training\] learning_rate = nan: "),
        ("[training]\nlearning_rate = 1e300", r"learning_rate = 1e\+300: it takes .* at most"),
        ("[network]\nbandwidth_hz = 1e-300", r"bandwidth_hz = 1e-300: it takes 1e-30 or more"),
        ("[network]\nbandwidth_hz = inf", r"\[network\] bandwidth_hz = inf: "),
        ("[network]\nsize_slowness_correlation = nan", r"size_slowness_correlation = nan: "),
        ("[planner]\nq_min = nan", r"\[planner\] q_min = nan: "),
        ("[planner]\nquantile = nan", r"\[planner\] quantile = nan: "),
        ("[checks]\nnorm_factor = nan", r"\[checks\] norm_factor = nan: "),
        ("[checks]\nnorm_cap = nan", r"\[checks\] norm_cap = nan: "),
        ("[training]\ntarget = 'accuracy>=nan'", "target accuracy is nan"),
        ("[data]\nname = ''", r"\[data\] name = '': "),
        ("[model]\nname = ''", r"\[model\] name = '': "),
        ("x" * 5000 + " = 1", r"unknown key 'x+\.\.\.; known are seed"),
        ("x = 1\n" * 300_000, "is longer than 1,048,576 bytes"),
    ],
)
def test_numbers_and_files_at_the_edge_are_named_with_their_place(tmp_path, text, said):
    with pytest.raises(InputError, match=said) as caught:
        experiment = loaded(tmp_path, text)
        from fedpace.experiment.build import check

        check(experiment)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("seed=" + "9" * 5000, "--set 'seed=9+'?.*no value that can be read"),
        ("data.alpha=nan", r"\[data\] alpha = nan"),
        ("data.name=\udcff", r"'\\udcff' holds .udcff, which cannot be written as UTF-8"),
        ("data.name=" + "[" * 5000, "no value that can be read"),
    ],
)
def test_overrides_at_the_edge_are_named(tmp_path, override, said):
    with pytest.raises(InputError, match=said):
        loaded(tmp_path, "", override)


@pytest.mark.parametrize(
    ("section", "key", "word"),
    [
        ("data", "eval", "test"), ("data", "eval", "holdout"), ("data", "eval", "Val"),
        ("data", "eval", "unsupervised"), ("data", "name", "stdlib-docs"),
        ("model", "name", "minilm"),
    ],
)  # fmt: skip
def test_a_word_with_a_meaning_is_no_folder_of_that_name(tmp_path, section, key, word):
    (tmp_path / word).mkdir()
    text = f"[{section}]\n{key} = '{word}'"
    assert getattr(getattr(loaded(tmp_path, text), section), key) == word
    load_scenario(tmp_path / "my.toml")
    elsewhere = loaded(tmp_path, f"[{section}]\n{key} = './{word}'")
    anchored = getattr(getattr(elsewhere, section), key)
    assert anchored == (f"./{word}" if key == "eval" else str(tmp_path / word))


def test_a_path_beside_the_file_counts_from_there(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "held.csv").touch()
    text = "[data]\nname = 'mine'\neval = 'held.csv'\n[model]\nname = 'mine'"
    experiment = loaded(tmp_path, text)
    assert experiment.data.name == experiment.model.name == str(tmp_path / "mine")
    assert experiment.data.eval == str(tmp_path / "held.csv")


@pytest.mark.parametrize("name", ["a" * 5000, "a\\u0000b"])
def test_a_name_that_no_file_system_takes_is_left_for_whoever_loads_it(tmp_path, name):
    assert loaded(tmp_path, f'[data]\nname = "{name}"').data.name
