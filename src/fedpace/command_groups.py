"""The commands that come in groups: `fedpace keys ...` and `fedpace bench ...`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from fedpace.core.errors import writing
from fedpace.terminal import open_console, say

__all__ = ["bench", "keys"]

_out = open_console()
_err = open_console(stderr=True)

keys = typer.Typer(no_args_is_help=True, help="Say which clients may join.")
_Folder = Annotated[Path, typer.Option("--folder", help="Where the keys are.")]
_Server = Annotated[
    str | None,
    typer.Option("--server", metavar="HOST:PORT", help="A running server's own address: at once."),
]
_Authority = Annotated[Path | None, typer.Option("--ca", help="Its certificate authority.")]


@keys.command("add")
def keys_add_command(
    name: Annotated[
        str, typer.Argument(metavar="NAME|PUBKEY", help="A new name, or a public key file.")
    ],
    folder: _Folder = Path("keys"),
    server: _Server = None,
    ca: _Authority = None,
) -> None:
    """Let a client in: by a public key it sent, or by a key pair made here for it.

    Examples:
        fedpace keys add phone-7

        fedpace keys add laptop.pub --folder keys
    """
    from fedpace.deploy.keys import add_key, make_key, read_public_key

    with writing("--folder", folder, "give a folder, or none yet"):
        public = Path(name) if name.endswith(".pub") else make_key(folder, name)
        add_key(folder, public.stem, read_public_key(public))
    say(_out, f"{public.stem} may join")
    if not name.endswith(".pub"):
        say(_out, f"its private key, for it alone: {folder / name}")
    _tell(folder, server, ca)


@keys.command("list")
def keys_list_command(
    folder: _Folder = Path("keys"), server: _Server = None, ca: _Authority = None
) -> None:
    """List the clients that may join; with --server, who of them is there.

    Example:
        fedpace keys list
    """
    from fedpace.deploy.keys import list_clients, read_keys

    if server is None:
        for key in read_keys(folder):
            say(_out, key.name)
        return
    for name, node, status in list_clients(folder, server, ca):
        say(_out, f"{name}  {node or '-'}  {status}")


@keys.command("revoke")
def keys_revoke_command(
    name: str, folder: _Folder = Path("keys"), server: _Server = None, ca: _Authority = None
) -> None:
    """Shut a client out; a running one is stopped at its next call.

    Example:
        fedpace keys revoke phone-7
    """
    from fedpace.deploy.keys import revoke_key

    revoke_key(folder, name)
    say(_out, f"{name} may not join any more")
    _tell(folder, server, ca)


def _tell(folder: Path, server: str | None, ca: Path | None) -> None:
    if server is None:
        return
    from fedpace.deploy.keys import sync_keys

    sync_keys(folder, server, ca)
    say(_out, f"the server at {server} knows")


bench = typer.Typer(no_args_is_help=True, help="Benchmarks: methods compared by time to target.")


@bench.command("time-to-target")
def time_to_target_command(
    suite: Annotated[Path, typer.Argument(help="Suite file (TOML), e.g. of benchmarks/suites.")],
    data: Annotated[
        Path | None, typer.Option(help="Folder of the data sets that a suite calls data:NAME.")
    ] = None,
    task: Annotated[list[str] | None, typer.Option(help="Only these; may be repeated.")] = None,
    network: Annotated[list[str] | None, typer.Option(help="Only these; may be repeated.")] = None,
    method: Annotated[list[str] | None, typer.Option(help="Only these; may be repeated.")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Only these; may be repeated.")] = None,
    untuned: Annotated[
        bool,
        typer.Option(
            "--untuned",
            help="Tune nothing: the first rate and the middle size of each grid; a first look, "
            "with results of its own, SUITE-untuned.jsonl.",
        ),
    ] = False,
    cores: Annotated[int, typer.Option(min=1, help="Processes, of one thread each.")] = 2,
    out: Annotated[
        Path, typer.Option(help="Folder of the results, SUITE.jsonl; lines are appended.")
    ] = Path("benchmarks/results"),
    keep: Annotated[
        Path, typer.Option(help="Folder of finished trainings; started again, it goes on there.")
    ] = Path("runs/bench"),
) -> None:
    """Tune every method of a suite, run it for every seed, append a line for each result.

    Examples:
        fedpace bench time-to-target benchmarks/suites/quick.toml --data ../shared/data

        fedpace bench time-to-target benchmarks/suites/full.toml --data ../shared/data --cores 4

        fedpace bench time-to-target benchmarks/suites/full.toml --task trec --method flora
    """
    from fedpace.commands import bench_time_to_target

    only: dict[str, list[Any]] = {
        "tasks": task or [], "networks": network or [], "methods": method or [],
        "seeds": seed or [],
    }  # fmt: skip
    bench_time_to_target(suite, only, data, untuned, cores, out, keep, _out, _err)


@bench.command("page")
def page_command(
    results: Annotated[Path, typer.Argument(help="Results of one suite (JSON lines).")],
    suite: Annotated[Path | None, typer.Option(help="Its suite file, for the first words.")] = None,
    out: Annotated[Path, typer.Option(help="Markdown file to write.")] = Path("docs/results.md"),
) -> None:
    """Write the tables and figures of a suite's results.

    Example:
        fedpace bench page benchmarks/results/quick.jsonl --out docs/results.md
    """
    from fedpace.commands import bench_page

    bench_page(results, suite, out, _out)
