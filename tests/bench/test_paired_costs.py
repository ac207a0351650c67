"""What tuning chose, as the page has it."""

from bench.some_suites import suite_named
from bench.test_paired_page import SEEDS, line
from fedpace.bench.paired_costs import choices
from fedpace.bench.paired_tables import results_of


def test_the_rate_is_the_one_that_there_was_to_tune():
    step = {"server_optimizer": "sgd", "server_learning_rate": 2.0}
    rates = {
        "overlapping": {"server_optimizer": "adam", "server_learning_rate": 0.01},
        "plain": step, "average": {**step, "learning_rate": 0.05}, "buffer": {
            "server_learning_rate": 0.5},
    }  # fmt: skip
    made = choices(results_of([
        line(method, seed, 10.0, kind="ours" if method == "overlapping" else "sampler", rate=rate)
        for method, rate in rates.items() for seed in SEEDS
    ]), None)  # fmt: skip
    shown = {"overlapping": "0.01", "plain": "2", "average": "0.05", "buffer": "0.5"}
    for method, rate in shown.items():
        assert f"| {method} | {rate}; 0.2 |" in made


def test_choices_at_the_end_of_a_grid_are_told_by_method():
    """A rival at the end of its grid may not be tuned, ours in the middle of its own is."""
    suite = suite_named("evidence")
    adam = {"server_optimizer": "adam"}
    made = choices(results_of([
        line(method, seed, 10.0, kind=kind, rate={**adam, "server_learning_rate": rate}, size=size)
        for seed in SEEDS for method, kind, rate, size in (
            ("biased", "ours", 0.01, {"noise_ratio": 0.5}),
            ("fadas", "published", 0.005, {"cohort": 0.8}),
            ("icc24", "sampler", 0.02, {"noise_ratio": 0.5}))
    ], suite), suite)  # fmt: skip
    assert "Of 3 choices 2 lie at the end of the grid of rates (fadas 1 of 1, icc24 1 of 1)" in made
    assert "Of 3 choices 1 lie at the end of the grid of sizes (fadas 1 of 1)." in made
