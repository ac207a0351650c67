import io
import subprocess
import sys

import numpy as np
import pytest

from fedpace.core.plan import Decision, Plan, RoundSeconds
from fedpace.core.target import Target
from fedpace.reporting import plots
from fedpace.reporting.metrics import TimeSplit
from fedpace.reporting.style import PALETTE, method_styles, time_unit


def saved(figure, form="svg"):
    out = io.BytesIO()
    figure.savefig(out, format=form)
    return out.getvalue()


def plan(count, q=None, k=None):
    rng = np.random.default_rng(0)
    q = rng.uniform(0.05, 0.9, count) if q is None else np.full(count, q)
    k = rng.integers(1, 17, count) if k is None else np.full(count, k)
    return Plan("exact", np.arange(count).astype(str), Decision(q, k))


def links(count):
    rng = np.random.default_rng(1)
    return rng.lognormal(1, 1, count), rng.lognormal(0, 1, count)


def test_the_curve_shows_the_given_points_and_marks_the_time_to_target():
    clock, accuracy = np.array([0.0, 60.0, 240.0]), np.array([0.1, 0.4, 0.7])
    made = plots.learning_curves(
        {"ours": (clock, accuracy), "uniform": (clock * 2, accuracy / 2)},
        "accuracy", Target("accuracy", 0.6), {"ours": 240.0, "uniform": None},
    )  # fmt: skip
    lines = made.axes[0].get_lines()
    np.testing.assert_allclose(lines[0].get_xdata(), clock / 60)
    np.testing.assert_allclose(lines[0].get_ydata(), accuracy)
    assert [p[0] for p in lines[1].get_data()] == [4.0, 0.7]
    labels = [text.get_text() for text in made.legends[0].get_texts()]
    assert labels == ["ours: 4 min 00 s", "uniform: target not reached"]
    assert made.axes[0].get_xlabel() == "wall-clock time, min"


def test_a_target_on_another_metric_is_not_drawn():
    points = {"ours": (np.array([0.0, 10.0]), np.array([2.0, 1.0]))}
    made = plots.learning_curves(points, "loss", Target("accuracy", 0.6), {"ours": 10.0})
    assert len(made.axes[0].get_lines()) == 1


def test_the_bars_of_the_time_split_end_at_the_clock():
    splits = {"ours": TimeSplit(60, 120, 0, 6), "uniform": TimeSplit(60, 240, 30, -1e-12)}
    bars = plots.time_splits(splits).axes[0].patches
    ends = [max(b.get_x() + b.get_width() for b in bars[i::2]) for i in range(2)]
    np.testing.assert_allclose(ends, [186 / 60, 330 / 60])


def test_participation_shows_every_client_sorted_by_expectation():
    counts, expected = np.array([3, 9, 0]), np.array([2.5, 8.0, 1.0])
    observed, line = plots.participation({"ours": counts}, {"ours": expected}).axes[0].get_lines()
    assert observed.get_ydata().tolist() == [9, 3, 0]
    assert line.get_ydata().tolist() == [8.0, 2.5, 1.0]


def test_a_quantity_that_is_the_same_for_all_gets_no_panel():
    def panels(made):
        return [axes.get_ylabel() for axes in made.axes if axes.get_ylabel()]

    start, upload = links(9)
    both = panels(plots.plan_map(start, upload, plan(9)))
    assert sum("alone" in label for label in both) == 2
    only_q = panels(plots.plan_map(start, upload, plan(9, k=16)))
    assert "sampling probability q" in only_q and "sketch rank k" not in only_q
    assert plots.varying(plan(9, q=0.2, k=16)) == {}
    nearly = np.linspace(0.9999, 1.0, 9)  # a scale of these would be one of their last digits
    assert plots.varying(plan(9, q=nearly, k=16)) == {}
    saved(plots.plan_map(start, upload, plan(9, q=0.2, k=16)))


def test_the_distribution_is_that_of_the_rounds():
    seconds = np.random.default_rng(2).exponential(10, 5000)
    made = plots.measured_against_predicted({"ours": seconds}, {"ours": RoundSeconds(10, 6.9, 30)})
    x, share = made.axes[0].get_lines()[0].get_data()
    at = np.searchsorted(np.sort(seconds), x, side="right") / len(seconds)
    np.testing.assert_allclose(at, share, atol=1 / 400)


def test_prediction_and_simulation_share_a_figure():
    seconds = np.linspace(1, 50, 100)
    made = plots.round_time_distribution(seconds, seconds / 50, np.linspace(1, 50, 1000))
    assert len(made.axes[0].get_lines()) == 2


def test_a_sweep_has_a_panel_for_each_quantity_and_one_legend():
    sweep = {
        "bandwidth, MHz": ([1, 2, 5, 10], {"exact": [9, 5, 3, 2], "uniform": [12, 9, 8, 7]}),
        "LoRA rank": ([4, 8], {"exact": [3, 4], "paper": [5, 5]}),
    }
    made = plots.predicted_times(sweep)
    assert [axes.get_xlabel() for axes in made.axes] == list(sweep)
    assert [t.get_text() for t in made.legends[0].get_texts()] == ["exact", "uniform", "paper"]
    exact = [axes.get_lines()[0].get_color() for axes in made.axes]
    assert exact[0] == exact[1]


def test_a_client_without_a_link_and_a_plan_without_end_are_left_out_of_the_figure():
    start, upload = links(9)
    upload[3] = np.inf
    assert saved(plots.plan_map(start, upload, plan(9)))
    assert saved(plots.predicted_times({"x": ([1, 2], {"exact": [np.inf, 3], "paper": [1, 9]})}))
    assert saved(plots.predicted_times({"x": ([1, 2], {"exact": [np.inf, np.nan]})}))


def test_ten_thousand_clients_make_a_small_figure():
    count = 10_000
    start, upload = links(count)
    assert len(saved(plots.plan_map(start, upload, plan(count)))) < 400_000
    counts = np.arange(count) % 60
    drawn = plots.participation({"ours": counts}, {"ours": counts + 0.5})
    assert len(saved(drawn)) < 400_000


@pytest.mark.parametrize("name", ["$x^{$", "<script>", "a & b", "Größe"])
def test_any_method_name_can_be_drawn(name):
    made = plots.time_splits({name: TimeSplit(1, 2, 3, 4), "uniform": TimeSplit(1, 2, 3, 4)})
    assert saved(made)
    assert name in [t.get_text() for t in made.axes[0].get_yticklabels()]


def test_figures_are_saved_in_other_formats_too():
    made = plots.time_splits({"ours": TimeSplit(1, 2, 3, 4)})
    assert saved(made, "png").startswith(b"\x89PNG")
    assert saved(made, "pdf").startswith(b"%PDF")


def test_a_method_keeps_its_colour_when_others_are_added():
    few, many = method_styles(["a", "b"]), method_styles(["a", "b", "c", "d", "e", "f", "g"])
    assert few["b"] == many["b"]
    assert len({(s["color"], s["linestyle"]) for s in many.values()}) == 7


def test_a_time_axis_counts_at_least_two_of_its_unit():
    assert [time_unit(s)[1] for s in (0, 119, 120, 7199, 7200, 172800)] == [
        "s", "s", "min", "min", "h", "d",
    ]  # fmt: skip


def luminance(colour):
    channel = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(channel <= 0.04045, channel / 12.92, ((channel + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


@pytest.mark.parametrize("mode", [0, 1])
def test_text_and_lines_stand_out_on_light_and_dark(mode):
    def contrast(one, other):
        dark, light = sorted(luminance(PALETTE[name][mode]) for name in (one, other))
        return (light + 0.05) / (dark + 0.05)

    assert contrast("ink", "paper") > 7
    assert contrast("muted", "paper") > 4.5
    assert min(contrast(n, "paper") for n in PALETTE if n.startswith("method")) > 3
    for part in ("compute", "upload"):
        assert contrast(f"{part}-text", part) > 4.5
    assert contrast("ink", "waiting") > 4.5 and contrast("ink", "overhead") > 4.5


def test_importing_loads_no_plotting_and_drawing_no_pyplot():
    code = (
        "import sys; import fedpace.reporting.report, fedpace.reporting.tables;"
        "heavy = {'matplotlib', 'jinja2', 'rich', 'torch'} & set(sys.modules); assert not heavy;"
        "from fedpace.reporting import plots; from fedpace.reporting.metrics import TimeSplit;"
        "plots.time_splits({'a': TimeSplit(1, 2, 3, 4)});"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
