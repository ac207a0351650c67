"""The page of a suite under one rule for the band, from lines made up for it."""

import pytest

from fedpace.bench.paired_page import write_page
from fedpace.core.errors import InputError


def line(method, seed, seconds, *, kind="sampler", network="fast", gain=None, limit=None):
    return {
        "suite": "s", "digest": "d", "task": "t", "network": network, "rule": "work-conserving",
        "method": method, "kind": kind, "seed": seed, "target": "accuracy>=0.8",
        "rate": {"server_learning_rate": 0.01}, "size": {"cohort": 0.2}, "rounds": 7 + seed,
        "seconds": seconds, "end_seconds": 400.0 if seconds is None else seconds,
        "predicted_seconds": None, "over_limit": limit,
        "predicted_gain": {} if gain is None else {"synchronous": gain},
        "curve": [[1.0, 0.2], [2.0, 0.5]],
    }  # fmt: skip


LINES = [
    *(line("overlapping", s, 10.0, kind="ours", gain=1.5, limit=4.0) for s in range(2)),
    *(line("synchronous", s, t, kind="ablation", limit=8.0) for s, t in enumerate((10.0, 40.0))),
    *(line("fedbuff", s, 30.0, kind="published") for s in range(2)),
    *(line("weighted", s, None) for s in range(2)),
    *(line("overlapping", s, 20.0, kind="ours", gain=0.8, network="slow") for s in range(2)),
    *(line("synchronous", s, 10.0, kind="ablation", network="slow") for s in range(2)),
]


def test_the_page_has_ratios_bounds_predictions_and_what_auto_would_take(tmp_path):
    files = write_page(LINES, tmp_path / "waiting.md", command="cmd")
    text = (tmp_path / "waiting.md").read_text()
    assert len(files) == 3 and all(file.exists() for file in files)
    best = "2.00 (1.00–4.00), synchronous"
    assert (
        f"| t, fast | 2.00 (1.00–4.00) | 3.00 (3.00–3.00) | > 40.00 (40.00–40.00) | {best} |"
        in text
    )
    # sqrt(2 * 1/2), and the interval of the first setting alone
    assert "| overlapping over the best of all others | 2 | 1.00 (0.71–1.41) |" in text
    # Where it predicts a loss the planner waits; of the slow setting no rival was run.
    assert "over the best rival | 1 | 3.00 (3.00–3.00) |" in text
    assert "| t, fast | 1.50 | 2.00 (1.00–4.00) | 8.00 | 4.00 | 4.00 |" in text
    assert "| t, slow | 0.80 | 0.50 (0.50–0.50) | – | – | – |" in text
    assert "0.01; 0.2" in text


def test_a_suite_may_compare_rounds(tmp_path, monkeypatch):
    class Suite:
        about, quantity, settings = "About.", "rounds", ()
        methods = ("overlapping", "synchronous")

        def digest(self, *names):
            return "d"

    lines = [each for each in LINES if each["method"] in Suite.methods]
    write_page(lines, tmp_path / "page.md", command="cmd", suite=Suite())
    text = (tmp_path / "page.md").read_text()
    assert "| t, fast | 7, 8 | 7, 8 |" in text and "What was to be shown" not in text
    assert "| t, fast | 1.00 (1.00–1.00) |" in text


def test_a_page_needs_one_method_of_ours(tmp_path):
    with pytest.raises(InputError, match="name 0 methods of kind 'ours'"):
        write_page(LINES[2:4], tmp_path / "page.md", command="cmd")
