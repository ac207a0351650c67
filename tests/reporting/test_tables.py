import io

from rich.console import Console

from fedpace.reporting.tables import beat_rows, prediction_rows, summary_rows, summary_table
from fedpace.reporting.units import bits_text, seconds_text
from fedpace.run_folder.reader import read_summary


def test_the_table_shows_what_the_summary_says(run_folder):
    summary = read_summary(run_folder)
    header, rows = summary_rows(summary)
    for (name, entry), row in zip(summary["methods"].items(), rows, strict=True):
        cells = dict(zip(header, row, strict=True))
        assert cells["Method"] == name
        assert cells["Time to accuracy\u00a0≥\u00a00.6"] == seconds_text(
            entry["time_to_target_seconds"]
        )
        assert cells["Upload"] == bits_text(entry["upload_bits"])
        assert cells["Final accuracy"] == f"{entry['final_accuracy']:.3f}"
        assert cells["Rounds run"] == str(entry["rounds"])
        assert float(cells["Time vs adaptive"].rstrip("×")) == round(
            summary["speedup"][name], len(cells["Time vs adaptive"].partition(".")[2]) - 1
        )


def test_columns_that_mean_nothing_are_left_out():
    entry = {
        "rounds": 3, "clock_seconds": 9.0, "upload_bits": 8e6, "final_loss": 1.25,
        "time_to_target_seconds": None, "rounds_to_target": None,
    }  # fmt: skip
    summary = {"methods": {"ours": entry}, "speedup": {"ours": None}, "target": None}
    header, rows = summary_rows(summary)
    assert header == ["Method", "Rounds run", "Clock", "Upload", "Final loss"]
    assert rows == [["ours", "3", "9.00 s", "1.00 MB", "1.250"]]
    header, rows = summary_rows({**summary, "target": "loss<=1.0"})
    assert header[1:3] == ["Time to loss\u00a0≤\u00a01.0", "Rounds to it"]
    assert rows[0][1:3] == ["not reached", "–"]


def test_beats_are_called_so_and_say_how_late_updates_were():
    entry = {"rounds": 3, "clock_seconds": 9.0, "upload_bits": 8e6, "final_loss": 1.25,
             "time_to_target_seconds": None, "rounds_to_target": None}  # fmt: skip
    late = {**entry, "schedule": "overlapping", "mean_staleness": 1.25, "mean_underway": 4.0}
    summary = {"methods": {"ours": late, "full": entry}, "speedup": {}, "target": None}
    header, rows = summary_rows(summary)
    assert header == ["Method", "Rounds or beats run", "Clock", "Upload", "Updates late by",
                      "Still at work at a step", "Final loss"]  # fmt: skip
    assert [row[4:6] for row in rows] == [["1.2", "4.0"], ["–", "–"]]
    assert summary_rows({**summary, "methods": {"ours": late}})[0][1] == "Beats run"


def test_of_beats_the_updates_are_predicted():
    late = {"schedule": "overlapping", "mean_round_seconds": 2.0, "predicted_updates": 31.6,
            "counted_updates": 30, "predicted_age_seconds": 5.0, "mean_age_seconds": None,
            "planner": "exact", "verdict": "converged"}  # fmt: skip
    summary = {"methods": {"ours": late}}
    assert prediction_rows(summary) == ([], [])
    assert beat_rows(summary)[1] == [
        ["ours", "2.00 s", "32", "30", "5.00 s", "–", "exact: converged"]
    ]


def test_predictions_stand_beside_what_was_measured(run_folder):
    summary = read_summary(run_folder)
    _, rows = prediction_rows(summary)
    for entry, row in zip(summary["methods"].values(), rows, strict=True):
        ratio = entry["mean_round_seconds"] / entry["predicted_round_seconds"]
        assert row[3] == f"{ratio:.2f}"


def test_the_terminal_shows_method_names_as_they_are():
    entry = {
        "rounds": 3, "clock_seconds": 9.0, "upload_bits": 8e6, "final_loss": 1.25,
        "time_to_target_seconds": None, "rounds_to_target": None,
    }  # fmt: skip
    table = summary_table({"methods": {"[red]a": entry}, "speedup": {}, "target": None})
    console = Console(file=io.StringIO(), width=100)
    console.print(table)
    assert "[red]a" in console.file.getvalue()
