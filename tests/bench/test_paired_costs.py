"""What tuning chose, as the page has it."""

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
