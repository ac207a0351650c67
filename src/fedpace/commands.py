"""What the commands do between their arguments and their output."""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from fedpace.core.errors import InputError, writing
from fedpace.experiment.request import Request
from fedpace.progress import RunProgress
from fedpace.terminal import say


def run_experiment(
    request: Request, workers: int | None, console: Console, errors: Console
) -> None:
    """`fedpace run`: run or resume, show the table, write the report."""
    experiment = request.experiment()
    # Only now: these load torch, which a mistake in the file need not wait for.
    from fedpace.experiment.run import resume, run
    from fedpace.experiment.site import in_process
    from fedpace.terminal import show_outcome

    site = partial(in_process, workers=workers)
    with RunProgress(errors) as progress:
        if request.resume is not None:
            record = resume(
                request.resume, experiment=experiment, show=progress.show, note=progress.note,
                site=site,
            )  # fmt: skip
        else:
            record = run(experiment, out=request.out, show=progress.show, site=site)
    show_outcome(record, console)


def print_plan(
    path: Path,
    overrides: Sequence[str],
    planner: str | None,
    as_json: bool,
    out: Path | None,
    plot: Path | None,
    console: Console,
    errors: Console,
) -> None:
    """`fedpace plan`: plan, print a table or JSON, draw."""
    from fedpace.experiment.plan_figures import draw_plan
    from fedpace.experiment.scenario import (
        load_scenario,
        plan_lines,
        plan_scenario,
        plan_table,
        scenario_network,
    )  # fmt: skip

    scenario = load_scenario(path, overrides)
    with errors.status("planning"):
        network = scenario_network(scenario)
        made = plan_scenario(scenario, network, planner)
    files: Sequence[Path] = ()
    text = json.dumps(made.to_json(), allow_nan=False)
    if out is not None:  # before the table, as the figures: what cannot be written is told first
        with writing("--out", out, "give a file in a folder that exists"):
            out.write_text(text + "\n", encoding="utf-8")
    if plot is not None:
        with errors.status("drawing"), writing("--plot", plot, "give a folder, or none yet"):
            files = draw_plan(made, scenario, network, plot)
    if as_json:
        print(text)
    else:
        console.print(plan_table(made, network))
        for line in plan_lines(made, network):
            console.print(line)
    for file in files:
        say(errors, f"figure: {file}")


def bench_time_to_target(
    path: Path,
    only: Mapping[str, Sequence[Any]],
    data: Path | None,
    untuned: bool,
    cores: int,
    out: Path,
    keep: Path,
    console: Console,
    errors: Console,
) -> None:
    """`fedpace bench time-to-target`: run what is missing, with a bar."""
    from fedpace.bench.suite import load_suite

    suite, name = load_suite(path, data), path.stem
    if untuned:
        suite, name = suite.untuned(), f"{name}-untuned"
    from fedpace.bench.time_to_target import Part, run_suite
    from fedpace.progress import counted

    results = out / f"{name}.jsonl"
    part = Part(**{what: tuple(names) for what, names in only.items()})
    part.check(suite)
    # Now, not once the first training is done, which may take hours.
    for option, folder in (("--out", out), ("--keep", keep)):
        with writing(option, folder, "give a folder, or none yet"):
            folder.mkdir(parents=True, exist_ok=True)
    with counted(errors, "tuning and training") as show:
        added = run_suite(suite, name, part, folder=keep, results=results, cores=cores, show=show)
    say(console, f"{added} lines added: {results}")


def bench_page(results: Path, suite: Path | None, out: Path, console: Console) -> None:
    """`fedpace bench page`: tables and figures."""
    from fedpace.bench import page, paired_page
    from fedpace.bench.results import read_results
    from fedpace.bench.suite import Suite
    from fedpace.experiment.parsing import parse
    from fedpace.experiment.toml_files import read_toml

    lines = read_results(results)
    if not lines:
        raise InputError(f"{results} has no lines; run `fedpace bench time-to-target` first")
    described = None if suite is None else parse(Suite, read_toml(suite), str(suite))
    command = f"fedpace bench page {results} --out {out}"
    if suite is not None:
        command += f" --suite {suite}"
    # One rule for the band: all are compared under it, seed by seed.
    made = paired_page if len({line["rule"] for line in lines}) == 1 else page
    with writing("--out", out, "give a Markdown file in a folder"):
        written = made.write_page(lines, out, command=command, suite=described)
    for file in written:
        say(console, f"written: {file}")
