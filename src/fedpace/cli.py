"""The command line: parse, call, print."""

import importlib.metadata
import logging
import sys
from pathlib import Path
from typing import Annotated, Any

import click
import typer
from typer.core import TyperGroup

from fedpace.command_groups import bench, keys
from fedpace.core.errors import FedPaceError, Interrupted, RunError, described, writing
from fedpace.terminal import open_console, say, tolerate_encodings


class _Group(TyperGroup):
    """Commands, of which an interruption reaches `main` before Typer makes an exit of it."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interruption:
            text = str(interruption) if isinstance(interruption, Interrupted) else "interrupted"
            raise _Ended(text) from None


class _Notes(logging.Handler):
    """Lines of the log, beside what the terminal shows."""

    def emit(self, record: logging.LogRecord) -> None:
        say(_err, f"fedpace: {record.getMessage()}")


class _Ended(Exception):
    """A command was interrupted; the text says how to go on."""


Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override a key of the file."),
]

app = typer.Typer(
    cls=_Group,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Federated LoRA over heterogeneous wireless networks, in the least wall-clock time.",
)


def _version(asked: bool) -> None:
    if asked:
        say(_out, f"fedpace {importlib.metadata.version('fedpace')}")
        raise typer.Exit


@app.callback()
def _before(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Say the version, and end."
        ),
    ] = False,
) -> None:
    pass


_out = open_console()
_err = open_console(stderr=True)


def main() -> None:
    """Run the command line; what FedPace raises on purpose, and files, end in one line."""
    tolerate_encodings()
    logging.getLogger("fedpace").addHandler(_Notes())
    logging.getLogger("fedpace").setLevel(logging.INFO)
    try:
        app()
    except RunError as error:
        _fail(error, 1)
    except FedPaceError as error:
        _fail(error, 2)
    except OSError as error:
        _fail(described(error), 1)
    except _Ended as ended:
        _fail(ended, 130)


def _fail(error: object, status: int) -> None:
    say(_err, f"fedpace: {error}")
    sys.exit(status)


@app.command("run")
def run_command(
    experiment: Annotated[
        Path | None, typer.Argument(help="Experiment file; without one the embedded default.")
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(help="Compare these methods; may be given several times. docs/methods.md."),
    ] = None,
    set_: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="Folder to make [runs/1, runs/2, ...].")] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with this run folder.")] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Train in so many processes, one thread each [this process]."),
    ] = None,
) -> None:
    """Fine-tune by federated LoRA on the virtual clock.

    Examples:
        fedpace run

        fedpace run my.toml --method adaptive --method uniform --out runs/mine

        fedpace run my.toml --method adaptive --method fedit --method flora

        fedpace run my.toml --set training.rounds=20 --set network.scenario=cell-link-bound

        fedpace run my.toml --workers 4

        fedpace run --resume runs/mine
    """
    from fedpace.commands import run_experiment
    from fedpace.experiment.request import Request

    run_experiment(Request(experiment, method or (), set_ or (), out, resume), workers, _out, _err)


@app.command("plan")
def plan_command(
    scenario: Annotated[Path, typer.Argument(help="Scenario file (TOML).")],
    planner: Annotated[str | None, typer.Option(help="In place of the file's own.")] = None,
    set_: Overrides = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, no table.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write the JSON to this file.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write figures into this folder.")] = None,
) -> None:
    """Choose sampling probabilities and sketch ranks for a population. Needs no torch.

    Examples:
        fedpace plan examples/cell.toml

        fedpace plan examples/cell.toml --planner paper --json

        fedpace plan examples/cell.toml --set training.schedule=overlapping --plot figures
    """
    from fedpace.commands import print_plan

    print_plan(scenario, set_ or (), planner, as_json, out, plot, _out, _err)


@app.command("clients")
def clients_command(
    from_fedscale: Annotated[Path, typer.Option(help="FedScale's client_device_capacity.")],
    out: Annotated[Path, typer.Option(help="File to write.")] = Path("clients.csv"),
    batch_size: Annotated[int, typer.Option(min=1, help="Samples in a local step.")] = 4,
    clients: Annotated[int | None, typer.Option(min=1, help="Draw so many [all].")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of that draw.")] = 0,
) -> None:
    """Write a clients.csv from devices that others measured.

    Example:
        fedpace clients --from-fedscale client_device_capacity --clients 100
    """
    from fedpace.wireless.clients_file import write_clients
    from fedpace.wireless.fedscale import read_fedscale

    made = read_fedscale(from_fedscale, batch_size=batch_size, clients=clients, seed=seed)
    write_clients(made, out)
    say(_out, f"{len(made)} clients: {out}")


@app.command("report")
def report_command(
    folder: Annotated[Path, typer.Argument(help="A run folder.")],
) -> None:
    """Write one self-contained HTML page from a run folder.

    Example:
        fedpace report runs/1
    """
    from fedpace.reporting.report import write_report

    say(_out, f"report: {write_report(folder)}")


@app.command("doctor")
def doctor_command(
    experiment: Annotated[
        Path | None, typer.Argument(help="Experiment file to try: its memory and its seconds.")
    ] = None,
    set_: Overrides = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, no table.")] = False,
) -> None:
    """Say what this installation can do; with an experiment, whether it fits this machine.

    Examples:
        fedpace doctor

        fedpace doctor my.toml
    """
    from fedpace.doctor import diagnose

    diagnose(experiment, set_ or (), as_json, _out, _err)


@app.command("serve")
def serve_command(
    experiment: Annotated[
        Path | None, typer.Argument(help="Experiment file; without one the embedded default.")
    ] = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on [127.0.0.1, or as before].")
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port to listen on [8080, or as before].")
    ] = None,
    clients: Annotated[
        int | None,
        typer.Option(min=1, help="Begin when so many have come; else [data] clients."),
    ] = None,
    wait: Annotated[
        float, typer.Option(help="Or begin after so many seconds with those that have.")
    ] = 3600.0,
    patience: Annotated[
        float, typer.Option(help="Longest round before the fleet's speed is known, seconds.")
    ] = 600.0,
    closed: Annotated[
        bool, typer.Option("--closed", help="Turn away new clients once the run began.")
    ] = False,
    method: Annotated[
        list[str] | None, typer.Option(help="Run these methods, one after another.")
    ] = None,
    set_: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="Folder to make [runs/1, runs/2, ...].")] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with this run folder.")] = None,
    log: Annotated[Path | None, typer.Option(help="File for what Flower says.")] = None,
    certificates: Annotated[
        Path | None, typer.Option(help="Folder of `fedpace certificates`, for other machines.")
    ] = None,
    keys: Annotated[
        Path | None, typer.Option(help="Folder of `fedpace keys`: who may join.")
    ] = None,
) -> None:
    """Run an experiment with clients on other machines: the server. Needs the extra `flower`.

    Examples:
        fedpace serve my.toml --clients 10 --out runs/fleet

        fedpace serve --resume runs/fleet
    """
    from fedpace.deploy.commands import serve
    from fedpace.deploy.listening import recalled_listening
    from fedpace.deploy.waiting import Waiting
    from fedpace.experiment.request import Request

    serve(
        Request(experiment, method or (), set_ or (), out, resume),
        recalled_listening(resume, host, port, log, certificates, keys),
        Waiting(clients, wait, patience, closed),
        _out,
        _err,
    )


@app.command("join")
def join_command(
    server: Annotated[str, typer.Argument(metavar="HOST:PORT", help="Of fedpace serve.")],
    data: Annotated[
        Path | None, typer.Option(help="File or folder of this client's examples.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="By which the server knows this client; else the host's.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Folder of the base model, where it is elsewhere here.")
    ] = None,
    partition: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="For tests: share I of the experiment's own data."),
    ] = None,
    wait: Annotated[
        float, typer.Option(help="Wait so many seconds for a server that is not there yet.")
    ] = 60.0,
    log: Annotated[Path | None, typer.Option(help="File for what Flower says.")] = None,
    ca: Annotated[Path | None, typer.Option("--ca", help="The server's ca.crt.")] = None,
    key: Annotated[Path | None, typer.Option(help="This client's private key.")] = None,
    pace: Annotated[
        bool, typer.Option("--pace", help="Send no faster than the server's plan assigns.")
    ] = False,
) -> None:
    """Take part in a run over the network: a client. Needs the extra `flower`.

    The data stays here; the server is told how many examples there are.

    Examples:
        fedpace join server.lan:8080 --data mine.jsonl

        fedpace join 127.0.0.1:8080 --partition 0/4

        fedpace join server.lan:8080 --data mine.jsonl --ca ca.crt --key phone-7 --pace
    """
    from fedpace.deploy.commands import join_server

    join_server(server, data, name, model, partition, wait, log, ca, key, pace, _out)


@app.command("testbed")
def testbed_command(
    experiment: Annotated[
        Path | None, typer.Argument(help="Experiment file; without one the embedded default.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Say what this machine offers, and what is missing.")
    ] = False,
    clean: Annotated[
        bool, typer.Option("--clean", help="Remove what testbeds left that were killed.")
    ] = False,
    network_only: Annotated[
        bool,
        typer.Option("--network-only", help="Make the network alone, and keep it until Ctrl-C."),
    ] = False,
    links: Annotated[
        Path | None,
        typer.Option(help="Links that change: CSV of client, time_seconds, rate_bps."),
    ] = None,
    method: Annotated[
        list[str] | None, typer.Option(help="Run these methods, one after another.")
    ] = None,
    set_: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="Folder to make [runs/1, runs/2, ...].")] = None,
    resume: Annotated[Path | None, typer.Option(help="Run folder to go on with.")] = None,
) -> None:
    """Run an experiment on a real network that the kernel shapes: Linux, root, the extra `flower`.

    Server and clients are processes in network namespaces of their own; the clock is measured.

    Examples:
        fedpace testbed --check

        sudo fedpace testbed my.toml --out runs/measured

        sudo fedpace testbed my.toml --set network.allocation=equal-share

        sudo fedpace testbed --resume runs/measured

        sudo fedpace testbed examples/cell.toml --network-only
    """
    from fedpace.experiment.request import Request
    from fedpace.testbed import commands

    if check:
        commands.show_check(_out)
    elif clean:
        commands.clean(_out)
    elif network_only:
        commands.hold_network(experiment, links, _out)
    else:
        commands.run(Request(experiment, method or [], set_ or [], out, resume), links, _out)


@app.command("certificates")
def certificates_command(
    folder: Annotated[Path, typer.Argument(help="Folder to write into; made where missing.")],
    host: Annotated[
        list[str] | None,
        typer.Option(help="Name or address by which clients reach the server; may be repeated."),
    ] = None,
    days: Annotated[int, typer.Option(min=1, help="How long they are valid.")] = 365,
) -> None:
    """Make a development certificate authority and a server certificate for TLS.

    Example:
        fedpace certificates certs --host server.lan --host 192.168.1.10
    """
    from fedpace.deploy.certificates import make_development_ca

    with writing("FOLDER", folder, "give a folder, or none yet"):
        made = make_development_ca(folder, host or [], days=days)
    say(_out, f"server:  {made.certificate} and {made.key}")
    say(_out, f"clients: {made.ca}")


app.add_typer(keys, name="keys")
app.add_typer(bench, name="bench")
