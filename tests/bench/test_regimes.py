"""The regime map against a table worked out by hand."""

import numpy as np
import pytest

from fedpace.bench.regimes import draw_regimes, has_regimes, measured_gain, predicted_gain
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
    panels = draw_regimes(LINES, suite_of(PLANE), "ours").axes
    shown = {
        panel.get_title(loc="left"): [text.get_text() for text in panel.texts] for panel in panels
    }
    assert shown == {  # rows of ascending spread, columns of ascending ratio
        "over uniform, measured": ["2.50", "1.50", "3.00", "2.00"],
        "over uniform, predicted": ["2.00"] * 4,
        "over weighted, measured": ["0.80", "–", "9.00", "–"],
        "over weighted, predicted": ["1.25"] * 4,
    }
