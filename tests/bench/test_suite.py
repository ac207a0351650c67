"""Suite files: what they say, what is refused, and one played to the end on a tiny model."""

import json
import re
from pathlib import Path

import pytest

import tiny
from fedpace.bench.suite import Suite, experiment_of, load_suite
from fedpace.core.errors import InputError
from fedpace.experiment.parsing import parse
from fedpace.experiment.toml_files import read_toml

SUITES = sorted((Path(__file__).parents[2] / "benchmarks" / "suites").glob("*.toml"))

TINY = """
seeds = [0, 1]
[budget]
client_updates = 12
rounds = 4
[experiment.model]
name = "data:model"
max_length = 12
[experiment.data]
clients = 6
partition = "dirichlet"
alpha = 1.0
[experiment.lora]
rank = 4
[experiment.training]
local_steps = 2
eval_every = 1
[tasks.words]
target = "accuracy>=0.99"
experiment.data = { name = "data:words" }
[networks.slow]
bandwidth_hz = 1e5
[networks.slower]
bandwidth_hz = 5e4
[[settings]]
task = "words"
network = "slow"
[[settings]]
task = "words"
network = "slower"
[[rates.adam]]
server_learning_rate = 0.02
[[rates.adam]]
server_learning_rate = 0.01
[sizes]
cohort = [{ cohort = 0.5 }]
[methods.adaptive]
kind = "ours"
rates = "adam"
[methods.uniform]
kind = "sampler"
rates = "adam"
sizes = "cohort"
"""


def write(tmp_path, text=TINY):
    (tmp_path / "suite.toml").write_text(text)
    return tmp_path / "suite.toml"


@pytest.mark.parametrize("path", SUITES, ids=lambda p: p.stem)
def test_every_suite_of_the_project_makes_experiments(path, tmp_path):
    text = path.read_text().replace('"data:', '"').replace('"model:', '"')
    suite = load_suite(write(tmp_path, text), None)
    assert suite.about
    for setting in suite.settings:
        for name, method in suite.methods.items():
            for rate in suite.rates[method.rates]:
                for size in suite.sizes.get(method.sizes or "", [{}]):
                    made = experiment_of(
                        suite, setting.task, setting.network, name,
                        rate=rate, size=size, seed=0, tuning=True,
                    )  # fmt: skip
                    # Planned for the rule by which it is charged.
                    assert made.network.allocation == suite.rules_of(name)[0]
                    # Where a setting says how often all are evaluated no method says otherwise.
                    said = setting.experiment.get("training", {}).get("eval_seconds")
                    assert made.training.eval_seconds == said


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('network = "slower"', 'network = "none"', "network 'none' is not defined; .*slow, slower"),
        ('rates = "adam"', 'rates = "sgd"', "rates 'sgd' is not defined"),
        ("seeds = [0, 1]", "seeds = [0, 100]", "tuning_seed 100 is among the compared seeds"),
        ("[budget]", "[buget]", "buget"),
        ('"data:words"', '"data:absent"', "absent, which is no folder"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, old, new, message):
    for name in ("words", "model"):
        (tmp_path / "data" / name).mkdir(parents=True)
    text = TINY.replace('name = "data:model"', 'name = "minilm"').replace(old, new, 1)
    with pytest.raises(InputError, match=message):
        load_suite(write(tmp_path, text), tmp_path / "data")


def test_the_data_folder_must_be_given_where_it_is_needed(tmp_path):
    with pytest.raises(InputError, match="--data"):
        load_suite(write(tmp_path), None)


@pytest.mark.torch
def test_a_part_of_a_suite_is_chosen_by_names(tmp_path):
    from fedpace.bench.time_to_target import Part, groups

    text = TINY.replace('name = "data:model"', 'name = "minilm"').replace("data:words", "words")
    suite = load_suite(write(tmp_path, text), None)
    named = {(g.method, g.networks) for g in groups(suite, Part())}
    # Uniform sampling at a given cohort knows nothing of the network: one training serves both.
    ours = {("adaptive", ("slow",)), ("adaptive", ("slower",))}
    assert named == ours | {("uniform", ("slow", "slower"))}
    part = Part(networks=("slow",), methods=("adaptive",))
    assert [(g.method, g.networks) for g in groups(suite, part)] == [("adaptive", ("slow",))]
    with pytest.raises(InputError, match="'oort' is none of the methods: adaptive, uniform"):
        Part(methods=("oort",)).check(suite)
    with pytest.raises(InputError, match="7 is none of the seeds: 0, 1"):
        Part(seeds=(7,)).check(suite)


@pytest.mark.torch
@pytest.mark.parametrize(
    "slower",
    [
        'bandwidth_hz = 5e4\nclients = "others.csv"',
        "bandwidth_hz = 5e4\nsmall_memory_share = 0.5",
        'bandwidth_hz = 5e4\nscenario = "cell-mild"',
        "bandwidth_hz = 5e4\ngain_db = 3.0",
    ],
)
def test_a_training_serves_two_networks_only_if_their_clock_alone_differs(tmp_path, slower):
    """Availabilities, memories and links that change decide who takes part, and how long."""
    from fedpace.bench.time_to_target import Part, groups

    text = TINY.replace('name = "data:model"', 'name = "minilm"').replace("data:words", "words")

    def grouped(text):
        found = groups(load_suite(write(tmp_path, text), None), Part(methods=("uniform",)))
        return {g.networks for g in found}

    together, apart = {("slow", "slower")}, {("slow",), ("slower",)}
    assert grouped(text.replace("= 5e4", "= 5e4\nfading = true")) == together
    assert grouped(text.replace("bandwidth_hz = 5e4", slower)) == apart
    limited = text.replace("[experiment.lora]", "[experiment.planner]\np95_limit_seconds = 9\n"
                           "[experiment.lora]")  # fmt: skip
    assert grouped(limited) == apart


@pytest.mark.torch
@pytest.mark.parametrize("place", ["suite", "task", "setting", "method", "rate"])
def test_beats_are_charged_as_beats_wherever_the_suite_asks_for_them(tmp_path, place):
    from fedpace.bench.training import Spec, train

    keys = 'schedule = "overlapping", beat_seconds = 2.0'
    more = f"experiment.training = {{ {keys} }}"
    lines = keys.replace(", ", "\n")
    old, new = {
        "suite": ("eval_every = 1", f"eval_every = 1\n{lines}"),
        "task": ("[tasks.words]", f"[tasks.words]\n{more}"),
        "setting": ('network = "slow"\n', f'network = "slow"\n{more}\n'),
        "method": ('kind = "ours"', f'kind = "ours"\n{more}'),
        "rate": ("server_learning_rate = 0.02", f"server_learning_rate = 0.02\n{lines}"),
    }[place]
    suite = tiny_suite(tmp_path, 'allocation = "work-conserving"\n' + TINY.replace(old, new, 1))
    rate = suite.grid("adaptive")[0][0]
    spec = Spec("words", "adaptive", ("slow",), rate, (), seed=0, tuning=False)
    trained = train(suite, spec, tmp_path / "keep", lambda now: False)
    clock = trained.clocks["slow"]["work-conserving"]
    assert clock == pytest.approx([2.0 * (beat + 1) for beat in range(len(clock))])
    assert len(clock) > 1 and trained.predicted_seconds == {"slow": 0.0}


@pytest.mark.torch
def test_a_finished_training_is_known_again_whatever_the_checks_of_a_server(tmp_path):
    from fedpace.bench.training import Spec, _key

    text = TINY.replace('name = "data:model"', 'name = "minilm"').replace("data:words", "words")
    suite = load_suite(write(tmp_path, text), None)
    spec = Spec("words", "uniform", ("slow",), (), (("cohort", 0.5),), seed=0, tuning=False)
    made = spec.experiment(suite)
    strict = made.model_copy(update={"checks": made.checks.model_copy(update={"strikes": 1})})
    other = made.model_copy(update={"seed": 1})
    assert _key(spec, suite, made) == _key(spec, suite, strict) != _key(spec, suite, other)


def tiny_suite(tmp_path, text=TINY):
    folder = tmp_path / "data" / "words"
    folder.mkdir(parents=True)
    tiny.write_model(tmp_path / "data" / "model")
    tiny.write_examples(folder / "train.jsonl")
    tiny.write_examples(folder / "test.jsonl", count=30, seed=1)
    text = text.replace('name = "data:model"', f'name = "{tmp_path / "data" / "model"}"')
    return load_suite(write(tmp_path, text), tmp_path / "data")


@pytest.mark.slow
@pytest.mark.torch
def test_a_shared_training_is_charged_as_one_of_its_own_would_be(tmp_path):
    from fedpace.bench.training import Spec, train

    # Each network says something of which the other is silent.
    text = TINY.replace("= 1e5", "= 1e5\nupload_compute_ratio = 0.1\noverhead_seconds = 9.0")
    text = text.replace("= 5e4", "= 5e4\nsize_slowness_correlation = 0.9")
    suite = tiny_suite(tmp_path, text)

    def clocks(*networks):
        size = (("cohort", 0.5),)
        spec = Spec("words", "uniform", networks, (), size, seed=0, tuning=False)
        return train(suite, spec, tmp_path / "keep", lambda now: False).clocks

    both, again = clocks("slow", "slower"), clocks("slower", "slow")
    alone = {**clocks("slow"), **clocks("slower")}
    assert both == alone == again
    assert both["slow"] != both["slower"]


def with_targets(*targets):
    """A setting of its own: evaluated every second of the clock, until six seconds are over."""
    text = TINY.replace('target = "accuracy>=0.99"', f"targets = {json.dumps(targets)}")
    more = "experiment.training = { eval_seconds = 1 }\nseconds = 6"
    return text.replace('network = "slow"', f'network = "slow"\n{more}')


@pytest.mark.torch
def test_of_several_targets_a_training_ends_at_the_hardest_or_when_its_time_is_up(tmp_path):
    from fedpace.bench.training import Spec, train

    def trained(*targets, seed=0):
        folder = tmp_path / f"{targets[0]}-{seed}"
        suite = tiny_suite(folder, with_targets(*targets))
        size, rate = (("cohort", 0.5),), (("server_learning_rate", 0.05),)
        spec = Spec("words", "uniform", ("slow",), rate, size, seed=seed, tuning=False)
        return train(suite, spec, folder / "keep", lambda least: False)

    pair = ("slow", "equal-finish")
    missed = trained("loss<=0.02", "loss<=0.01")
    clock = missed.clocks["slow"]["equal-finish"]
    assert clock[-1] >= 6 > clock[-2] and missed.ended == "budget"
    assert missed.targets(pair) == {"loss<=0.02": None, "loss<=0.01": None}
    assert missed.seconds(pair) is None
    # Every round ends in another second than the one before.
    assert [t for t, _ in missed.curve(pair, "loss")] == clock
    # Of another seed, whose first round lowers the loss.
    other = trained("loss<=0.02", "loss<=0.01", seed=1)
    clock, first = other.clocks["slow"]["equal-finish"], other.evaluations[0][1]["loss"]
    reached = trained(f"loss<={first + 1e-6}", f"loss<={first}", seed=1)
    assert reached.ended == "target" and reached.clocks["slow"]["equal-finish"] == clock[:1]
    assert list(reached.targets(pair).values()) == [clock[0]] * 2
    assert reached.seconds(pair) == clock[0]


@pytest.mark.torch
def test_a_task_whose_easiest_target_holds_before_training_is_refused(tmp_path):
    from fedpace.bench.training import Spec, train

    def refused(folder, text):
        suite = tiny_suite(folder, text)
        keys = (("server_learning_rate", 0.05),)
        spec = Spec("words", "uniform", ("slow",), keys, (("cohort", 0.5),), seed=0, tuning=False)
        with pytest.raises(InputError, match="before training") as caught:
            train(suite, spec, folder / "keep", lambda least: False)
        assert not (folder / "keep").exists()
        return str(caught.value)

    single = TINY.replace("accuracy>=0.99", "loss<=100")
    said = refused(tmp_path / "single", single)
    assert said.startswith("words: target = 'loss<=100.0': the model has loss ")
    several = refused(tmp_path / "several", with_targets("loss<=100", "loss<=0.01"))
    assert several == said


@pytest.mark.torch
def test_relative_losses_are_shares_of_the_loss_before_training(tmp_path):
    from fedpace.bench.training import Spec, train

    def losses(rate, folder, more=""):
        text = with_targets("loss<=0.02", "loss<=0.01")
        suite = tiny_suite(folder, text.replace("[tasks.words]", f"[tasks.words]\n{more}"))
        keys = (("server_learning_rate", rate),)
        spec = Spec("words", "uniform", ("slow",), keys, (("cohort", 0.5),), seed=0, tuning=False)
        trained = train(suite, spec, folder / "keep", lambda least: False)
        return [values["loss"] for _, values in trained.evaluations]

    untrained = losses(1e-12, tmp_path / "untrained")[0]
    plain = losses(0.05, tmp_path / "plain")
    relative = losses(0.05, tmp_path / "relative", "relative = true")
    assert relative == pytest.approx([loss / untrained for loss in plain], rel=1e-6)
    assert all(abs(loss - 1) > 1e-3 for loss in relative)  # it moved


@pytest.mark.parametrize(
    "targets", ['["loss<=1.2", "loss<=0.9"]', '["accuracy>=0.5", "accuracy>=0.6"]']
)
def test_relative_targets_lie_below_the_first_loss(targets, tmp_path):
    text = TINY.replace('target = "accuracy>=0.99"', f"relative = true\ntargets = {targets}")
    with pytest.raises(InputError, match="shares of the first loss"):
        load_suite(write(tmp_path, text), None)


def test_the_planned_cohort_is_what_the_planner_takes_when_nobody_names_one(tmp_path):
    from fedpace.bench.suite import PLANNED

    text = TINY.replace('name = "data:model"', 'name = "minilm"').replace("data:words", "words")
    text = text.replace("[experiment.training]", "[experiment.planner]\ncohort = 0.3\n"
                        "[experiment.training]")  # fmt: skip
    suite = load_suite(write(tmp_path, text), None)

    def cohort(size):
        made = experiment_of(
            suite, "words", "slow", "uniform", rate={}, size=size, seed=0, tuning=False
        )
        return made.planner.cohort

    assert (cohort({}), cohort({"cohort": 0.5}), cohort({"cohort": PLANNED})) == (0.3, 0.5, None)


def test_untuned_each_method_has_its_first_rate_and_middle_size(tmp_path):
    text = TINY.replace('name = "data:model"', 'name = "minilm"').replace("data:words", "words")
    text = text.replace("[{ cohort = 0.5 }]", "[{ cohort = 0.1 }, { cohort = 0.5 }]")
    suite = load_suite(write(tmp_path, text), None)
    grid = suite.untuned().grid("uniform")
    assert grid == ([(("server_learning_rate", 0.02),)], [(("cohort", 0.5),)])
    # So its lines are no lines of the suite.
    names = ("words", "slow", "uniform")
    assert suite.untuned().digest(*names) != suite.digest(*names)


@pytest.mark.parametrize("name", ["quick", "full", "whole-model", "regimes"])
def test_committed_results_are_of_the_suites_as_they_are(name):
    """A suite with another digest would be measured anew, which takes hours."""
    root = SUITES[0].parent
    suite = parse(Suite, read_toml(root / f"{name}.toml"), name)
    text = (root.parent / "results" / f"{name}.jsonl").read_text()
    for line in map(json.loads, text.splitlines()):
        assert line["digest"] == suite.digest(line["task"], line["network"], line["method"])


def test_the_quick_tier_is_part_of_the_evidence():
    """Its rates and sizes are those that the evidence's tuning chose, so its runs are the same."""
    results = SUITES[0].parent.parent / "results"
    every = {}
    for line in map(json.loads, (results / "evidence.jsonl").read_text().splitlines()):
        every[line["task"], line["network"], line["method"], line["seed"]] = line
    quick = [json.loads(text) for text in (results / "quick.jsonl").read_text().splitlines()]
    assert {line["seed"] for line in quick} == {0, 1, 2} and len({ln["method"] for ln in quick}) > 4
    for line in quick:
        other = every[line["task"], line["network"], line["method"], line["seed"]]
        assert (line["rate"], line["size"]) == (other["rate"], other["size"])
        # Another processor rounds otherwise: an example more or less moves an evaluation.
        assert line["targets"] == pytest.approx(other["targets"], rel=0.02)


@pytest.mark.torch
def test_a_network_whose_memories_are_smaller_has_a_training_of_its_own(tmp_path):
    """Memory limits the ranks, so the plan of uniform sampling is another one there."""
    from fedpace.bench.time_to_target import Part, groups
    from fedpace.bench.training import Spec, train

    suite = tiny_suite(tmp_path, TINY.replace("= 5e4", "= 5e4\nsmall_memory_share = 0.5"))
    named = {g.networks for g in groups(suite, Part(methods=("uniform",)))}
    assert named == {("slow",), ("slower",)}
    size = (("cohort", 0.5),)
    spec = Spec("words", "uniform", ("slow", "slower"), (), size, seed=0, tuning=False)
    with pytest.raises(AssertionError, match="uniform plans for slower otherwise"):
        train(suite, spec, tmp_path / "keep", lambda now: False)


def same_run(line):
    """All that a line says but for how long this machine took."""
    return json.dumps({key: value for key, value in line.items() if key != "computing_seconds"})


@pytest.mark.torch
@pytest.mark.slow
def test_a_suite_is_played_to_the_end_and_goes_on_where_it_was_cut(tmp_path):
    from fedpace.bench.time_to_target import Part, run_suite

    suite = tiny_suite(tmp_path)
    keep, results = tmp_path / "keep", tmp_path / "tiny.jsonl"

    def play(part=Part()):
        return run_suite(
            suite, "tiny", part, folder=keep, results=results, cores=1, show=lambda *_: None
        )

    added = play(Part(seeds=(suite.seeds[0],)))
    assert added == (2 + 4) * 1
    added += play()
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    # Ours: two networks. Uniform: two networks, two rules. Two seeds each.
    assert added == len(lines) == 2 * 2 + 4 * 2
    assert len({(ln["method"], ln["network"], ln["rule"], ln["seed"]) for ln in lines}) == added
    trained = len(list(keep.iterdir()))
    assert play() == 0 and len(list(keep.iterdir())) == trained
    # Trainings lost, results kept: nothing is to be done.
    for path in keep.iterdir():
        path.rename(tmp_path / path.name)
    assert play() == 0 and not list(keep.iterdir())
    # A seed's lines lost too: nothing is tuned again, and no other seed is trained.
    every = results.read_text()
    kept = [ln for ln in lines if ln["seed"] != suite.seeds[0]]
    results.write_text("".join(json.dumps(ln) + "\n" for ln in kept))
    assert play() == added - len(kept) == 6
    assert {re.search(r"-s(\d+)-", path.name)[1] for path in keep.iterdir()} == {"0"}
    redone = [json.loads(line) for line in results.read_text().splitlines()]
    assert sorted(map(same_run, redone)) == sorted(map(same_run, lines))
    results.write_text(every)
    for path in tmp_path.glob("words-*.json"):
        path.rename(keep / path.name)
    # A training and its lines lost: what comes again is the same.
    lost = next(path for path in keep.iterdir() if "s0" in path.name)
    lost.unlink()
    results.write_text("")
    assert play() == added
    again = [json.loads(line) for line in results.read_text().splitlines()]
    assert sorted(map(same_run, again)) == sorted(map(same_run, lines))
    # The slower network is charged twice the upload time of the same training.
    share = {
        ln["network"]: ln["end_seconds"]
        for ln in lines
        if (ln["method"], ln["rule"], ln["seed"]) == ("uniform", "equal-share", 0)
    }
    assert share["slower"] > share["slow"]


def test_a_digest_changes_with_what_decides_the_result_and_with_nothing_else(tmp_path):
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        for name in ("words", "model"):
            (folder / "data" / name).mkdir(parents=True)
    text = TINY.replace('name = "data:model"', 'name = "minilm"')
    one, two = (load_suite(write(tmp_path, text), folder / "data") for folder in folders)
    own = one.digest("words", "slow", "uniform")
    assert two.digest("words", "slow", "uniform") == own
    assert one.digest("words", "slower", "uniform") != own
    for old, new in [
        ("cohort = 0.5", "cohort = 0.4"),
        ("0.99", "0.98"),
        ("rounds = 4", "rounds = 5"),
    ]:
        changed = load_suite(write(tmp_path, text.replace(old, new)), folders[0] / "data")
        assert changed.digest("words", "slow", "uniform") != own
    # As the page reads it, without the folder.
    unplaced = parse(Suite, read_toml(write(tmp_path, text)), "suite")
    assert unplaced.digest("words", "slow", "uniform") == own
    # A grid of another method's.
    changed = load_suite(
        write(tmp_path, text.replace("cohort = 0.5", "cohort = 0.4")), folders[0] / "data"
    )
    assert changed.digest("words", "slow", "adaptive") == one.digest("words", "slow", "adaptive")
