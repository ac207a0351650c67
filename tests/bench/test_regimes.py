"""The regime map against a table worked out by hand, and the gains of the older pages."""

import numpy as np
import pytest

from fedpace.bench.figures import measured_gain, predicted_gain
from fedpace.bench.regimes import draw_regimes, has_regimes
from fedpace.bench.suite import Suite


def suite_of(networks):
    return Suite(
        seeds=[0], budget={"client_updates": 1, "rounds": 1}, experiment={},
        tasks={"t": {"target": "accuracy>=0.8", "experiment": {}}},
        networks=networks, settings=[{"task": "t", "network": name} for name in networks],
        rates={"adam": [{}]}, methods={"ours": {"kind": "ours", "rates": "adam"}},
    )  # fmt: skip


def network(ratio, spread):
    return {"upload_compute_ratio": ratio, "step_spread": spread}


PLANE = {f"{x}-{y}": network(x, y) for x in (3.0, 0.3) for y in (0.2, 1.0)}


def line(network, method, seconds, promised=None):
    return {
        "task": "t", "network": network, "rule": "equal-finish", "method": method,
        "seconds": seconds, "end_seconds": seconds or 90.0, "predicted_gain": promised or {},
    }  # fmt: skip


LINES = [
    *(line(name, "ours", 10.0, {"uniform": 2.0, "weighted": 1.25}) for name in PLANE),
    *(line(name, "uniform", 15.0 + 5 * i) for i, name in enumerate(PLANE)),
    line("0.3-0.2", "weighted", 8.0),
    line("0.3-1.0", "weighted", None),
]


def test_networks_that_span_a_plane_are_known_as_such():
    assert has_regimes(suite_of(PLANE))
    assert not has_regimes(None)
    assert not has_regimes(suite_of({"a": {}, "b": {}}))
    assert not has_regimes(suite_of({"a": network(1.0, 1.0), "b": network(3.0, 1.0)}))
    assert not has_regimes(suite_of(dict(list(PLANE.items())[:3])))
    assert not has_regimes(suite_of({**PLANE, "again": PLANE["3.0-0.2"]}))


def test_gains_are_ratios_of_times_and_promises_of_the_first_plan():
    assert measured_gain(LINES, ("t", "3.0-1.0"), "ours", "uniform") == 2.0
    assert measured_gain(LINES, ("t", "0.3-1.0"), "ours", "weighted") == 9.0  # at least
    assert np.isnan(measured_gain(LINES, ("t", "3.0-1.0"), "ours", "weighted"))
    assert predicted_gain(LINES, ("t", "3.0-1.0"), "ours", "weighted") == 1.25
    assert np.isnan(predicted_gain(LINES, ("t", "elsewhere"), "ours", "weighted"))


def test_every_cell_shows_its_own_network():
    pytest.importorskip("matplotlib")
    measured = {("t", name): 2.5 - 0.5 * i for i, name in enumerate(PLANE)}
    panels = draw_regimes(
        suite_of(PLANE), {"measured": measured, "promised": {("t", "0.3-0.2"): 0.8}}
    ).axes
    shown = {
        panel.get_title(loc="left"): [text.get_text() for text in panel.texts] for panel in panels
    }
    assert list(PLANE) == ["3.0-0.2", "3.0-1.0", "0.3-0.2", "0.3-1.0"]
    assert shown == {  # rows of ascending spread, columns of ascending ratio
        "measured": ["1.50", "2.50", "1.00", "2.00"],
        "promised": ["0.80", "–", "–", "–"],
    }


def test_the_page_of_a_plane_has_a_map_of_what_was_measured_and_promised(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    from fedpace.bench import paired_page

    shown = {}

    def drawn(suite, panels):
        shown.update(panels)
        return draw_regimes(suite, panels)

    monkeypatch.setattr(paired_page, "draw_regimes", drawn)
    lines = [
        {**line(name, method, seconds), "rule": "work-conserving", "suite": "s", "digest": "d",
         "kind": kind, "seed": 0, "target": "accuracy>=0.8", "curve": [[1.0, 0.2], [2.0, 0.5]],
         "rate": {}, "size": {}, "rounds": 9, "predicted_seconds": None, "computing_seconds": 1.0,
         "predicted_gain": {"synchronous": 1.5} if method == "ours" else {}}
        for i, name in enumerate(PLANE)
        for method, kind, seconds in (("ours", "ours", 10.0), ("synchronous", "ablation", 20.0 + i))
    ]  # fmt: skip
    command = {"command": "cmd", "suite": suite_of(PLANE)}
    files = paired_page.write_page(lines, tmp_path / "page.md", **command)
    assert tmp_path / "img" / "results-s-regimes.png" in files
    page = (tmp_path / "page.md").read_text()
    assert "## Regime map" in page and "(img/results-s-regimes.png)" in page
    places = [("t", name) for name in PLANE]
    measured = dict(zip(places, [2.0, 2.1, 2.2, 2.3], strict=True))
    assert shown["ours, measured"] == pytest.approx(measured)
    assert shown["ours, promised"] == pytest.approx(dict.fromkeys(places, 1.5))
