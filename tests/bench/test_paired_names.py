"""What a newcomer needs to read a page, from the suite alone."""

from bench.some_suites import suite_named
from bench.test_paired_page import LINES
from fedpace.bench.paired_names import names
from fedpace.bench.paired_tables import results_of


def test_targets_networks_and_methods_are_told():
    suite = suite_named("evidence")
    network = {"fast": "compute-bound", "slow": "mild"}
    found = [{**each, "task": "trec", "network": network[each["network"]]} for each in LINES]
    told = names(results_of(found, suite), suite)
    assert "`layers = 2`" in told and "`local_steps = 5`" in told and "virtual clock" in told
    assert '| trec | accuracy>=0.74, accuracy>=0.78, accuracy>=0.82 | data: `name = "trec"`' in told
    assert "`upload_compute_ratio = 0.3`, `fading = true` |" in told and "`scenario = " in told
    assert "link-bound" not in told and "dolly" not in told  # those that were run alone
    assert "| fedbuff | a server that steps along the mean of every ten arrivals" in told


def test_a_word_on_a_method_decides_no_result():
    suite = suite_named("evidence")
    other = suite.methods["fedbuff"].model_copy(update={"about": "something else"})
    changed = suite.model_copy(update={"methods": {**suite.methods, "fedbuff": other}})
    one, two = (s.digest("trec", "balanced", "fedbuff") for s in (suite, changed))
    assert one == two


def test_every_method_of_a_suite_that_has_a_page_says_what_it_is():
    for name in ("evidence", "whole-model", "language-model", "quick", "regimes", "equal-share"):
        methods = suite_named(name).methods
        assert [n for n, each in methods.items() if not each.about] == [], name
