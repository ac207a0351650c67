"""What `fedpace testbed` does between its arguments and its output."""

import shlex
import time
from contextlib import suppress
from itertools import count
from pathlib import Path

from rich.console import Console
from rich.table import Table

from fedpace.core.errors import InputError, Interrupted, RunError
from fedpace.experiment.request import Request
from fedpace.run_folder import schema
from fedpace.terminal import say
from fedpace.testbed.kernel import examine, missing
from fedpace.testbed.spaces import leftovers, remove


def run(request: Request, traces: Path | None, console: Console) -> None:
    """`fedpace testbed EXPERIMENT`: run it or go on with it, write the report."""
    experiment = request.experiment()
    from fedpace.testbed.traces import read_traces

    resumed = request.resume is not None
    if resumed and traces is not None:
        raise InputError("--links and --resume exclude each other: a run goes on with the links "
                         f"that it began with, in its {schema.LINKS}")  # fmt: skip
    if request.resume is not None and (kept := request.resume / schema.LINKS).exists():
        traces = kept
    changing = {} if traces is None else read_traces(traces, experiment.data.clients)
    if (lacking := missing(examine())) is not None:
        raise RunError(lacking)
    # Only now: these load Flower, which a mistake in the file need not wait for.
    from fedpace.experiment.build import check
    from fedpace.reporting.report import write_report
    from fedpace.reporting.tables import summary_table
    from fedpace.run_folder.measured import read_times
    from fedpace.run_folder.reader import read_run
    from fedpace.testbed.prediction import prediction_table
    from fedpace.testbed.processes import COMMAND
    from fedpace.testbed.run import run_on_testbed

    check(experiment)
    folder = (request.resume or request.out or _numbered(Path("runs"))).resolve()
    if resumed and not (folder / schema.EXPERIMENT).exists():
        raise InputError(f"{folder} has no {schema.EXPERIMENT}; it is not a run folder to resume")
    if not resumed and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists and is not empty; name another folder with --out, or "
                         "go on with it with --resume")  # fmt: skip
    try:
        run_on_testbed(experiment, folder, changing, resumed=resumed)
    except KeyboardInterrupt:
        if not (folder / schema.EXPERIMENT).exists():
            raise
        again = f"{COMMAND} --resume {shlex.quote(str(folder))}"
        raise Interrupted(f"interrupted; go on with {again}") from None
    console.print(summary_table(read_run(folder).summary))
    if times := read_times(folder):
        console.print(prediction_table(times))
    say(console, f"report:  {write_report(folder)}")


def _numbered(parent: Path) -> Path:
    """The first of parent/1, parent/2, ... that does not exist; the server's process claims it."""
    return next(path for n in count(1) if not (path := parent / str(n)).exists())


def hold_network(path: Path | None, traces: Path | None, console: Console) -> None:
    """`fedpace testbed SCENARIO --network-only`: make the network, say how to use it, and wait."""
    from fedpace.experiment.scenario import load_scenario, scenario_network
    from fedpace.testbed.network import limit_links, shaped_network
    from fedpace.testbed.network_only import network_hints, network_table, shares_of
    from fedpace.testbed.traces import follow, read_traces

    if path is None:
        raise InputError("--network-only needs a scenario file with [data] clients and [network], "
                         "such as examples/cell.toml")  # fmt: skip
    network = scenario_network(load_scenario(path))
    shares = shares_of(network)
    changing = {} if traces is None else read_traces(traces, len(network.clients))
    if (lacking := missing(examine())) is not None:
        raise RunError(lacking)
    with shaped_network(len(network.clients)) as shaped:
        limit_links(shaped.run, network)
        shaped.classes.change(shares.root_bps, shares.leaves)
        console.print(network_table(shaped.run, network, shares))
        for line in network_hints(shaped.run):
            console.print(line, highlight=False, markup=False, soft_wrap=True)
        console.print("the network is there until this command is interrupted (Ctrl-C)")
        began, set_to = time.monotonic(), dict[int, float]()
        with suppress(KeyboardInterrupt):
            while True:
                follow(shaped.run, changing, time.monotonic() - began, set_to)
                time.sleep(0.1)


def show_check(console: Console) -> None:
    """`fedpace testbed --check`: list what there is and what is missing.

    Raises:
        RunError: something is missing without which there is no testbed.
    """
    findings = examine()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("", "here", "for", "where it is missing"):
        table.add_column(column)
    for f in findings:
        here = "yes" if f.there else "[red]no[/]" if f.needed else "no, optional"
        table.add_row(f.name, here, f.purpose, "" if f.there else f.remedy)
    console.print(table, highlight=False)
    if (lacking := missing(findings)) is not None:
        raise RunError(lacking)
    console.print("a testbed can be made here")


def clean(console: Console) -> None:
    """`fedpace testbed --clean`: remove what testbeds left whose process has ended."""
    found = leftovers()
    for run in found:
        for what in remove(run):
            console.print(f"removed {what}", highlight=False, markup=False)
    if not found:
        console.print("nothing was left")
