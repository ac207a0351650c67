import json
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest

from fedpace.core.errors import MissingExtraError
from fedpace.reporting.report import _client_rows, write_report
from fedpace.reporting.style import PALETTE
from fedpace.reporting.tables import prediction_rows, summary_rows
from fedpace.run_folder.reader import read_run, read_summary

VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """What a test asks of a page: elements, text by element, tables as rows."""

    def __init__(self, text):
        super().__init__()
        self.source, self.elements, self.open, self.texts, self.tables = text, [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    def text(self, tag):
        return "".join(data for name, data in self.texts if name == tag)


def read(folder):
    return Page((folder / "report.html").read_text("utf-8"))


@pytest.fixture(scope="module")
def page(run_folder):
    return read(run_folder)


def test_the_page_is_well_formed_and_says_what_it_is(page):
    assert page.open == []
    assert page.all("html") == [{"lang": "en"}]
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all(
        "meta"
    )
    assert "adaptive" in page.text("title")
    assert re.search(
        r"^adaptive reached accuracy 0\.6 in .*faster than uniform",
        page.text("h1").replace("\u00a0", " "),
    )


def test_the_tables_hold_the_numbers_of_the_summary(page, run_folder):
    summary = read_summary(run_folder)
    for table, (header, rows) in zip(
        page.tables, [summary_rows(summary), prediction_rows(summary)]
    ):
        assert table == [header, *rows]


def test_every_figure_is_a_picture_with_name_and_caption(page):
    names = [svg["aria-label"] for svg in page.all("svg")]
    assert len(names) == 6 == len(page.all("figure")) == len(page.all("figcaption"))
    assert all(svg["role"] == "img" for svg in page.all("svg"))
    assert [n.split(".")[0] for n in names] == [
        "Accuracy against wall-clock time", "Where the time went", "Who took part how often",
        "Round time, measured and predicted", "Plan of adaptive against device and link",
        "Plan of proportional against device and link",
    ]  # fmt: skip


def test_every_figure_is_valid_xml_of_its_own(page):
    figures = re.findall(r"<svg.*?</svg>", page.source, flags=re.DOTALL)
    assert len(figures) == 6
    for figure in figures:
        root = ElementTree.fromstring(figure)
        assert root.get("viewBox") and root.get("width") is None
        assert not list(root.iter("style"))


def test_identifiers_are_unique_and_references_find_them(page):
    identifiers = [a["id"] for _, a in page.elements if "id" in a]
    assert len(identifiers) == len(set(identifiers)) > 20
    values = [v for _, a in page.elements for v in a.values() if v]
    references = {m for v in values for m in re.findall(r"(?:url\(|^)#([\w.-]+)\)?", v)}
    assert references
    assert references <= set(identifiers)


def test_the_page_loads_nothing(page):
    assert page.source.lower().count("http") == 1, "only http-equiv"
    forbidden = {"script", "link", "iframe", "object", "embed", "img", "base", "form"}
    assert not forbidden & {tag for tag, _ in page.elements}
    for tag, attributes in page.elements:
        for key, value in attributes.items():
            assert not key.startswith("on"), (tag, key)
            if key in ("src", "href", "xlink:href"):
                assert value.startswith(("#", "data:image/png;base64,")), (tag, key, value[:40])
    assert "@import" not in page.source and "@font-face" not in page.source
    assert "default-src 'none'" in page.source


def test_every_colour_is_defined_for_light_and_dark(page):
    light, dark = page.source.split("prefers-color-scheme: dark", 1)
    for name in set(re.findall(r"var\(--([\w-]+)\)", page.source)):
        assert f"--{name}: " in light, name
        assert f"--{name}: " in dark.split("</style>")[0], name
    # No drawn colour but those of the palette and of the colour map is left as a number.
    figures = "".join(re.findall(r"<svg.*?</svg>", page.source, flags=re.DOTALL))
    assert not {one for one, _ in PALETTE.values()} & set(re.findall(r"#[0-9a-f]{6}", figures))
    assert "#000000" not in figures


def test_the_page_is_small(page):
    assert len(page.source.encode()) < 500_000


def test_the_same_folder_gives_the_same_page_anywhere(write_run, tmp_path):
    here, there = (
        write_run(tmp_path / name, clients=5, rounds=4, methods=("uniform",)) for name in "ab"
    )
    assert write_report(here).read_bytes() == write_report(there).read_bytes()


def test_what_others_wrote_is_shown_and_never_run(write_run, tmp_path):
    evil = '"><script>alert(1)</script><img src=x onerror=alert(2)>'
    folder = write_run(
        tmp_path / "run", clients=5, rounds=4, methods=(evil, "$x^{$"), prefix=f"{evil}&",
    )  # fmt: skip
    (folder / "experiment.toml").write_text(f"name = '{evil}'\n</pre><script>alert(3)</script>")
    path = folder / "summary.json"
    summary = json.loads(path.read_text())
    summary["environment"] = {evil: evil}
    summary["methods"][evil]["verdict"] = evil
    path.write_text(json.dumps(summary))
    page = Page(write_report(folder).read_text("utf-8"))
    assert page.open == []
    assert not {"script", "img"} & {tag for tag, _ in page.elements}
    assert not [k for _, a in page.elements for k in a if k.startswith("on")]
    for tag in ("h1", "th", "text", "dt", "dd", "pre"):
        assert "<script>alert(1)</script>" in page.text(tag), tag
    assert "$x^{$" in page.text("text")
    assert f"{evil}&00" in page.text("th")


def test_a_run_that_was_cut_off_says_so(write_run, tmp_path):
    folder = write_run(tmp_path / "run", clients=5, rounds=6, methods=("uniform",))
    path = folder / "rounds.jsonl"
    path.write_text(path.read_text()[:-30])
    write_report(folder)
    assert "cut off" in read(folder).text("p")


def test_a_run_without_target_makes_no_claim_about_it(write_run, tmp_path):
    folder = write_run(tmp_path / "run", clients=5, rounds=6, target=None, methods=("uniform",))
    write_report(folder)
    page = read(folder)
    assert page.text("h1").startswith("No target was set")
    assert "target" not in page.text("figcaption") + page.text("li")
    assert page.tables[0][0][1] == "Rounds run"


def test_a_slower_first_method_is_called_slower(write_run, tmp_path):
    folder = write_run(
        tmp_path / "run", clients=10, rounds=200, methods=("uniform", "adaptive"),
        speed={"uniform": 0.5}, renew=False,
    )  # fmt: skip
    write_report(folder)
    assert "slower than adaptive" in read(folder).text("h1")


def test_rounds_that_nobody_joined_are_no_obstacle(write_run, tmp_path):
    folder = write_run(tmp_path / "run", clients=3, rounds=4, methods=("uniform",))
    path = folder / "rounds.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        line |= {"participants": [], "train_loss": None, "clock_seconds": 0, "round_seconds": 0}
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_report(folder)
    assert len(read(folder).all("svg")) == 4


def test_a_method_keeps_its_colour_where_another_is_left_out(write_run, tmp_path):
    """Rounds that overlap stand in a table of their own, and the others' swatches do not move."""
    folder = write_run(tmp_path / "run", rounds=6, methods=("adaptive", "uniform"))
    path = folder / "summary.json"
    summary = json.loads(path.read_text())
    summary["methods"]["adaptive"] |= {
        "schedule": "overlapping", "predicted_updates": 9.0, "counted_updates": 8,
        "predicted_age_seconds": 5.0, "mean_age_seconds": 4.0,
    }  # fmt: skip
    path.write_text(json.dumps(summary))
    write_report(folder)
    found = read(folder)
    assert [[row[0] for row in table[1:]] for table in found.tables[:3]] == [
        ["adaptive", "uniform"], ["uniform"], ["adaptive"]
    ]  # fmt: skip
    swatches = re.findall(r'class="swatch" style="background: var\(--(method-\d)\)', found.source)
    assert swatches == ["method-0", "method-1", "method-1", "method-0"]
    times = re.search(r"<svg[^>]*Round time.*?</svg>", found.source, flags=re.DOTALL)[0]
    assert "--method-1" in times and "--method-0" not in times
    assert "or at a beat if idle" in found.source  # what q is where rounds overlap


@pytest.mark.slow
def test_ten_thousand_clients_fit_into_one_page(write_run, tmp_path):
    folder = write_run(tmp_path / "run", clients=10_000, rounds=3, methods=("adaptive", "uniform"))
    write_report(folder)
    page = read(folder)
    assert len(page.source.encode()) < 1_000_000
    assert len(page.tables[2]) == 101
    assert "The 100 clients with the most data of 10000" in page.text("p")


@pytest.mark.parametrize("package", ["jinja2", "matplotlib.style"])
def test_a_missing_extra_is_named_with_the_remedy(write_run, tmp_path, monkeypatch, package):
    folder = write_run(tmp_path / "run", clients=3, rounds=4, methods=("uniform",))
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'fedpace\[plots\]'"):
        write_report(folder)


def test_clients_are_listed_with_the_shares_that_a_plan_with_a_bias_gives_them(run_folder):
    run = read_run(run_folder)
    name, *others = run.plans
    first, made = run.plans[name][-1]
    share = np.linspace(1, 2, len(made)) / np.linspace(1, 2, len(made)).sum()
    biased = replace(made, decision=replace(made.decision, aggregation_weight=share))
    header, rows = _client_rows(replace(run, plans={**run.plans, name: [(first, biased)]}))
    assert all(len(row) == len(header) for row in rows)
    listed = {row[0]: row[header.index(f"{name}: counts as")] for row in rows}
    ids = [str(client) for client in run.clients.client_id]
    assert listed == {client: f"{share[ids.index(client)]:.4f}" for client in listed}
    assert not any(f"{other}: counts as" in header for other in others)


def test_a_plan_that_no_round_followed_is_not_shown_and_rounds_count_from_one(write_run, tmp_path):
    run_folder = write_run(tmp_path / "run", clients=4, rounds=6, methods=("adaptive",))
    name, *_ = read_summary(run_folder)["methods"]
    write_report(run_folder)
    before = read(run_folder)
    shown = "The plan shown is the last of 2 that were in force, from round 4 on; the verdict above"
    assert shown in before.source
    table = json.loads((run_folder / "plan.json").read_text())
    renewals = table["methods"][name]["renewals"]
    unused = json.loads(json.dumps(renewals[-1]["plan"]))
    unused["sampling_probability"] = [0.123] * len(unused["client_id"])
    rounds = len(read_run(run_folder).records[name])
    renewals.append({"round": rounds, "plan": unused})
    (run_folder / "plan.json").write_text(json.dumps(table))
    write_report(run_folder)
    assert read(run_folder).source == before.source
    assert "Verdict on the first plan" in before.tables[1][0]
