"""What the commands do between their arguments and their output."""

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from fedpace.config import load_experiment
from fedpace.core.errors import InputError
from fedpace.progress import RunProgress


def run_experiment(
    path: Path | None,
    methods: Sequence[str],
    overrides: Sequence[str],
    out: Path | None,
    resume_folder: Path | None,
    console: Console,
    errors: Console,
) -> None:
    """`fedpace run`: run or resume, show the table, write the report."""
    if resume_folder is not None and out is not None:
        raise InputError("--out and --resume exclude each other; a resumed run stays in its folder")
    if resume_folder is not None and path is None:
        path = resume_folder / "experiment.toml"
    experiment = load_experiment(path, overrides)
    if methods:
        experiment = experiment.model_copy(update={"methods": list(methods)})
    # Only now: these load torch, which a mistake in the file need not wait for.
    from fedpace.reporting.report import write_report
    from fedpace.reporting.tables import summary_table
    from fedpace.runs import resume, run

    with RunProgress(errors) as progress:
        if resume_folder is not None:
            record = resume(resume_folder, experiment=experiment, show=progress.show)
        else:
            record = run(experiment, out=out, show=progress.show)
    console.print(summary_table(record.summary))
    console.print(f"report:  {escape(str(write_report(record.folder)))}", highlight=False)
    console.print(f"adapter: {escape(str(record.folder / 'adapter'))}", highlight=False)


def print_plan(
    path: Path,
    planner: str | None,
    as_json: bool,
    out: Path | None,
    plot: Path | None,
    console: Console,
    errors: Console,
) -> None:
    """`fedpace plan`: plan, print a table or JSON, draw."""
    from fedpace.scenario import (
        draw_plan,
        load_scenario,
        plan_lines,
        plan_scenario,
        plan_table,
        scenario_network,
    )  # fmt: skip

    scenario = load_scenario(path)
    with errors.status("planning"):
        network = scenario_network(scenario)
        made = plan_scenario(scenario, network, planner)
    text = json.dumps(made.to_json(), allow_nan=False)
    if out is not None:
        out.write_text(text + "\n", encoding="utf-8")
    if as_json:
        print(text)
    else:
        console.print(plan_table(made, network), highlight=False)
        for line in plan_lines(made, network):
            console.print(escape(line), highlight=False)
    if plot is not None:
        with errors.status("drawing"):
            files = draw_plan(made, scenario, network, plot)
        for file in files:
            errors.print(f"figure: {escape(str(file))}", highlight=False)
