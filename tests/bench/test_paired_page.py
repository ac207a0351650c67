"""The page of a suite under one rule for the band, from lines made up for it."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import spearmanr

from fedpace.bench.honesty import Promise, honesty, promises
from fedpace.bench.page import in_order
from fedpace.bench.paired import Ratio
from fedpace.bench.paired_figures import band_of
from fedpace.bench.paired_headline import headline, sentences
from fedpace.bench.paired_page import page_text, write_page
from fedpace.bench.paired_tables import AUTO, BEST, cell, results_of
from fedpace.bench.suite import Method, Setting
from fedpace.core.errors import InputError


def line(method, seed, seconds, *, kind="sampler", network="fast", gain=None, **more):
    return {
        "suite": "s", "digest": "d", "task": "t", "network": network, "rule": "work-conserving",
        "method": method, "kind": kind, "seed": seed, "target": "accuracy>=0.8",
        "rate": {"server_learning_rate": 0.01}, "size": {"cohort": 0.2}, "rounds": 7 + seed,
        "seconds": seconds, "end_seconds": 400.0 if seconds is None else seconds,
        "predicted_seconds": None, "over_limit": None,
        "tuning": {"trainings": 10, "clock_seconds": 3600.0, "computing_seconds": 1800.0},
        "computing_seconds": 36.0,
        "predicted_gain": {} if gain is None else {"synchronous": gain, "uniform": 2.0},
        "curve": [[1.0, 0.2], [2.0, 0.5]], **more,
    }  # fmt: skip


SEEDS = range(5)
KINDS = {
    name: Method(kind=kind, rates="adam")
    for name, kind in (("overlapping", "ours"), ("synchronous", "ablation"),
                       ("fedbuff", "published"), ("weighted", "sampler"))
}  # fmt: skip
LINES = [
    *(line("overlapping", s, 10.0, kind="ours", gain=1.5) for s in SEEDS),
    *(line("synchronous", s, 20.0, kind="ablation") for s in SEEDS),
    *(line("fedbuff", s, 30.0, kind="published") for s in SEEDS),
    *(line("weighted", s, None) for s in SEEDS),
    # Where it predicts a loss, and there is one.
    *(line("overlapping", s, 20.0, kind="ours", gain=0.8, network="slow") for s in SEEDS),
    *(line("synchronous", s, 10.0, kind="ablation", network="slow") for s in SEEDS),
    *(line("fedbuff", s, 15.0, kind="published", network="slow") for s in SEEDS),
]


def test_ours_and_auto_stand_against_every_rival_and_the_best():
    results = results_of(LINES)
    assert results.rivals == ["fedbuff", "weighted"] and results.ablations == ["synchronous"]
    fast, slow = ("t", "fast"), ("t", "slow")
    assert [results.best_rival("overlapping", s) for s in (fast, slow)] == ["fedbuff"] * 2
    found = {who: results.over(who, BEST) for who in ("overlapping", AUTO)}
    ratio = {
        who: [float(np.exp(each[s].log_ratio.mean())) for s in (fast, slow)]
        for who, each in found.items()
    }
    # In the slow setting the planner waits: 15 over 10 s instead of 15 over 20.
    assert ratio == {"overlapping": pytest.approx([3.0, 0.75]), AUTO: pytest.approx([3.0, 1.5])}
    assert [results.overlaps(s) for s in (fast, slow)] == [1.0, 0.0]
    # Where ours has a bias, 1.5 is not promise enough.
    biased = {**KINDS, "overlapping": KINDS["overlapping"].model_copy(
        update={"experiment": {"planner": {"max_bias": 0.2}}})}  # fmt: skip
    results = results_of(LINES, SimpleNamespace(methods=biased, quantity="seconds"))
    assert [results.overlaps(s) for s in (fast, slow)] == [0.0, 0.0]


def test_the_page_says_what_the_lines_say(tmp_path):
    files = write_page(LINES, tmp_path / "waiting.md", command="cmd")
    text = (tmp_path / "waiting.md").read_text()
    assert len(files) == 5 and all(file.exists() for file in files)
    for name in re.findall(r"\(img/(\S+)\)", text):
        assert (tmp_path / "img" / name).exists()
    # sqrt(3 * 0.75) and sqrt(3 * 1.5); no seed differs from another.
    assert (
        "| best rival | 2 | **1.50 (1.50–1.50)** | **2.12 (2.12–2.12)** | 0.75, t, slow |" in text
    )
    assert "| weighted | **> 40.00 (40.00–40.00)** | – |" in text
    assert "| synchronous | **2.00 (2.00–2.00)** | **0.50 (0.50–0.50) \u2193** |" in text
    assert "- overlapping in t, slow: fedbuff (**0.75 (0.75–0.75) \u2193**)" in text
    assert "- auto in" not in text
    assert "| overlapping over synchronous | t, slow | 0.80 | **0.50" in text
    # Two settings of ten trainings each, of 1 h of the clock and half an hour of computing.
    assert "| overlapping | 2 | 10 | 2.00 | 1.00 | 10 | 0.10 |" in text


def test_a_lead_at_the_first_target_is_not_taken_for_one_at_the_last():
    def run(method, seed, *seconds, kind):
        targets = dict(zip(("accuracy>=0.7", "accuracy>=0.8"), seconds, strict=True))
        return line(method, seed, seconds[-1], kind=kind, targets=targets)

    early = [
        *(run("overlapping", s, 10.0, 50.0, kind="ours") for s in SEEDS),
        *(run("fedbuff", s, 40.0, 50.0, kind="published") for s in SEEDS),
    ]
    text = page_text(early, command="cmd")
    assert "| fedbuff | **4.00 (4.00\u20134.00)** | 1.00 (1.00\u20131.00) |" in text


def test_five_sentences_and_a_table_come_first():
    results = results_of(LINES)
    told = sentences(results)
    assert told.startswith("To train to the same accuracy or loss, the best rival of each setting ")
    assert "took **1.50 times as long** as FedPace's overlapping rounds" in told
    assert "the slowest of 2 rivals, weighted, took at least 40.00 times" in told
    assert "tuned with 10 trainings" in told
    assert (
        "leads the best rival beyond what chance explains in 1 of 2 settings and trails in 1"
        in (told)
    )
    assert "(50% of the runs), the best rival took 2.12 times" in told
    assert told.endswith(
        "Overlapping rounds do not help in t, slow (fedbuff took 0.75 of our time)."
    )
    assert len(re.findall(r"[a-z0-9)]\.(?: |$)", told)) == 5
    assert "| fedbuff | **1.50x (1.50–1.50)** | **2.12x (2.12–2.12)** | 2 |" in headline(results)
    # A network on which no rival has been run yet is none of those compared.
    more = [*LINES, *(line("overlapping", s, 9.0, kind="ours", network="far") for s in SEEDS)]
    assert "over 2 settings (2 of t;" in sentences(results_of(more))
    alone = [each for each in LINES if each["method"] == "overlapping"]
    assert sentences(results_of(alone)) == "No rival has been run yet."


def test_without_rivals_the_first_sentence_is_of_rounds_that_wait():
    ours = [each for each in LINES if each["kind"] in ("ours", "ablation")]
    said = sentences(results_of(ours))
    assert "rounds that wait took **1.00 times as long** as FedPace's overlapping rounds" in said
    assert said.endswith("from 0.50 in t, slow to 2.00 in t, fast.")
    assert sentences(results_of(ours[:1])) == "No rival has been run yet."


def test_further_methods_of_ours_stand_beside_the_first():
    more = [
        *(line("biased", s, 5.0, kind="ours", gain=3.0, network=n) for s in SEEDS
          for n in ("fast", "slow")),
        *LINES,
    ]  # fmt: skip
    results = results_of(more)
    assert (results.ours, results.beside) == ("biased", ["overlapping"])
    # Its plans promise enough everywhere: "auto" would say nothing new.
    assert results.shown == ["biased", "overlapping"]
    told = sentences(results)
    assert "With its overlapping rounds in their place the best rival took 1.50 times" in told
    assert "| fedbuff | **4.24x (4.24–4.24)** | **1.50x (1.50–1.50)** | 2 |" in headline(results)
    text = page_text(more, command="cmd")
    assert "### biased" in text and "### overlapping" in text and "### auto" not in text
    assert "| t, fast | **2.00 (2.00–2.00)** | **4.00 (4.00–4.00)** |" in text


def test_lines_are_of_the_kind_that_their_suite_has_now():
    changed = {**KINDS, "overlapping": KINDS["synchronous"], "weighted": KINDS["overlapping"]}
    suite = SimpleNamespace(settings=[], methods=changed)
    told = {each["method"]: each["kind"] for each in in_order(LINES, suite)}
    assert told == {
        "overlapping": "ablation", "weighted": "ours", "synchronous": "ablation",
        "fedbuff": "published",
    }  # fmt: skip


def test_with_few_seeds_no_lead_is_called():
    few = [each for each in LINES if each["seed"] < 4]
    told = sentences(results_of(few))
    assert "in 0 of 2 settings and trails in 0" in told
    assert "**" not in headline(results_of(few))


def test_parts_that_were_not_run_are_named_and_break_nothing(tmp_path):
    class Suite:
        about, quantity, tuning_runs, seeds = "About.", "seconds", None, SEEDS
        settings = [Setting(task="t", network=network) for network in ("fast", "slow", "far")]
        methods, networks, tasks, experiment = KINDS, {"fast": {}}, {}, {}

        def digest(self, *names):
            return "d"

        def methods_in(self, setting):
            return self.methods

    for part in (LINES[:1], LINES[:12]):
        files = write_page(part, tmp_path / "page.md", command="cmd", suite=Suite())
        text = (tmp_path / "page.md").read_text()
        shown = {tmp_path / "img" / name for name in re.findall(r"\(img/(\S+)\)", text)}
        assert shown == set(files[1:])
        assert "- everything: in t, far" in text or "- everything: in t, slow; t, far" in text
        assert ("- fedbuff (2): in t, fast" in text) == (len(part) == 12)
    assert "- weighted: in t, fast" in text and "of the 5 seeds yet" in text
    assert "seeds yet" not in page_text(LINES, command="cmd", suite=Suite())
    early = [each for each in LINES if each["seed"] < 2]
    assert "- everything (2): in t, fast; t, slow" in page_text(early, command="c", suite=Suite())


def test_a_suite_may_compare_rounds(tmp_path):
    class Suite:
        about, quantity, settings, tuning_runs, seeds = "About.", "rounds", (), None, SEEDS
        methods, networks, tasks, experiment = KINDS, {}, {}, {}

        def digest(self, *names):
            return "d"

    write_page(LINES, tmp_path / "page.md", command="cmd", suite=Suite())
    text = (tmp_path / "page.md").read_text()
    assert "| overlapping | 7, 8, 9, 10, 11 | 7, 8, 9, 10, 11 |" in text
    assert "1.00 (1.00–1.00)" in text and "Promised" not in text


def test_leads_and_losses_are_marked_alike():
    flags = {"at_least": False, "at_most": False, "pairs": 8}
    assert cell(Ratio(1.5, 1.2, 1.8, **flags)) == "**1.50 (1.20–1.80)**"
    assert cell(Ratio(0.5, 0.4, 0.9, **flags)) == "**0.50 (0.40–0.90) \u2193**"
    assert cell(Ratio(1.1, 0.9, 1.3, **flags)) == "1.10 (0.90–1.30)"
    assert cell(None) == "–"


def test_promises_stand_beside_measurements():
    found = promises(results_of(LINES))
    # Of uniform sampling no run is there.
    assert [(p.setting[1], p.rival, p.predicted, round(p.measured.mean, 3)) for p in found] == [
        ("fast", "synchronous", pytest.approx(1.5), 2.0),
        ("slow", "synchronous", pytest.approx(0.8), 0.5),
    ]


def test_honesty_is_rank_correlation_and_error():
    pairs = [(1.5, 2.0), (0.8, 0.5), (1.2, 1.2), (1.2, 0.9), (3.0, 2.5)]
    made = [
        Promise(("t", "n"), "m", "r", a, Ratio(b, b, b, at_least=False, at_most=False, pairs=8))
        for a, b in pairs
    ]
    seen = honesty(made)
    assert seen.rank_correlation == pytest.approx(spearmanr(*zip(*pairs, strict=True)).statistic)
    # Factors 4/3, 1.6, 1, 4/3, 1.2: the third of five.
    assert seen.median_factor == pytest.approx(4 / 3)
    assert seen.same_side == pytest.approx(0.8)
    assert seen.bias == pytest.approx(np.prod([4 / 3, 5 / 8, 1, 3 / 4, 5 / 6]) ** 0.2)
    assert np.isnan(honesty(made[:2]).rank_correlation)


def test_a_band_holds_what_ended_and_begins_where_all_have_a_value():
    runs = [
        line("m", 0, 4.0, curve=[[1.0, 0.2], [3.0, 0.6], [4.0, 0.6]]),
        line("m", 1, 8.0, curve=[[2.0, 0.4], [8.0, 0.8]]),
    ]
    times, values = band_of(runs)
    assert (times[0], times[-1]) == pytest.approx((2.0, 8.0))
    # Smoothed 0.2, 0.4, 0.6 at 1, 3, 4, and 0.4, 0.6 at 2, 8.
    assert values[:, 0] == pytest.approx([0.3, 0.4]) and values[:, -1] == pytest.approx([0.6, 0.6])


def test_a_page_needs_one_method_of_ours(tmp_path):
    with pytest.raises(InputError, match="no method of kind 'ours'"):
        write_page(LINES[10:15], tmp_path / "page.md", command="cmd")


def test_a_bound_is_called_one_in_words_too():
    """What ours missed counts with the end of its budget: the true ratio is smaller."""
    ours = [line("overlapping", s, None if s == 0 else 10.0, kind="ours") for s in SEEDS]
    theirs = [line("fedbuff", s, 20.0, kind="published") for s in SEEDS]
    told = sentences(results_of([*ours, *theirs]))
    assert "best rival of each setting took at most **0.96 times" in told
    assert "rivals, fedbuff, took at most 0.96 times" in told
    both = [*ours, *theirs[:-1], line("fedbuff", 4, None, kind="published")]
    assert "took about **1.74 times as long**" in sentences(results_of(both))


def test_without_rivals_none_is_said_to_have_been_slower():
    own = [each for each in LINES if each["kind"] in ("ours", "ablation")]
    assert "## Where it does not help\n\nNo rival was run." in page_text(own, command="cmd")


def test_a_bias_that_is_not_the_default_is_said_beside_the_headline():
    """So are what tasks alike would weigh, and a rival of one setting."""
    more = [
        line("biased", s, 10.0, kind="ours", network=n) | {"task": t}
        for t, n in (("trec", "a"), ("trec", "b"), ("trec", "c"), ("news", "a")) for s in SEEDS
    ]  # fmt: skip
    more += [{**each, "method": "plain", "seconds": 30.0, "end_seconds": 30.0} for each in more]
    rivals = [
        {**each, "method": "fedbuff", "kind": "published"} | dict.fromkeys(
            ("seconds", "end_seconds"), 20.0 if each["task"] == "trec" else 80.0)
        for each in more if each["method"] == "biased"
    ]  # fmt: skip
    rare = [{**each, "method": "rare", "seconds": 90.0, "end_seconds": 90.0} for each in rivals[:5]]
    bias = Method(kind="ours", rates="adam", experiment={"planner": {"max_bias": 0.2}})
    methods = {"biased": bias, "plain": Method(kind="ours", rates="adam"), "fedbuff": bias}
    suite = SimpleNamespace(methods=methods, quantity="seconds")
    told = sentences(results_of([*more, *rivals, *rare], suite))
    assert (
        "(3 of trec, 1 of news; 90 % interval 2.83 to 2.83; 4.00 where tasks weigh alike)" in told
    )
    assert "rare, took 9.00 times, in 1 setting; 1 of the rivals were run in all" in told
    assert (
        "which is 0 by default: with plain ones, without a bias, the best rival took 0.94 times"
        in told
    )
    assert told.count(", a loss.") == 1


def test_ours_in_few_of_many_settings_has_no_column_of_its_own():
    networks = ("a", "b", "c")
    lines = [line("biased", s, 10.0, kind="ours", network=n) for n in networks for s in SEEDS]
    lines += [line("plain", s, 12.0, kind="ours", network=n) for n in networks[:2] for s in SEEDS]
    lines += [line("renewed", s, 11.0, kind="ours", network="a") for s in SEEDS]
    results = results_of(lines)
    assert results.shown == ["biased", "plain"] and results.ablations == ["renewed"]
    assert results.methods == ["biased", "plain", "renewed"]
