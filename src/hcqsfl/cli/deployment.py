"""The same experiment over real processes and hosts."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hcqsfl.cli.common import (
    DEFAULT_CACHE,
    CacheOption,
    JsonOption,
    OutOption,
    OverwriteOption,
    ResumeOption,
    SeedOption,
    SetOption,
    command_line,
    overrides,
    show_result,
    shown_progress,
    sub_app,
)

if TYPE_CHECKING:
    from hcqsfl.deployment.up import State

certs = sub_app("Make the certificates by which the machines of a federation know one another.")

ConfigArgument = Annotated[Path, typer.Argument(help="A TOML file of settings; see configs/ and docs/deployment.md.")]
CertsOption = Annotated[Path | None, typer.Option("--certs", help="Folder of certificates; see `hcqsfl certs make`.")]
InsecureOption = Annotated[
    bool, typer.Option("--insecure", help="No TLS: prints a warning, and only the loopback may be used.")
]
LogOption = Annotated[Path | None, typer.Option("--log", help="File of JSON lines; default standard error.")]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    for command in (serve, client, up, status, deal):
        app.command()(command)
    app.add_typer(certs, name="certs")


@certs.command("make")
def certs_make(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write to.")],
    client: Annotated[
        list[str] | None, typer.Option("--client", help="A client's name, as windows are dealt out; may be repeated.")
    ] = None,
    host: Annotated[
        list[str] | None, typer.Option("--host", help="Name or address of the server for its clients; may be repeated.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="Make one for each client of this experiment.")
    ] = None,
    days: Annotated[float, typer.Option(min=0.01, help="How long they hold.")] = 365,
    cache: CacheOption = DEFAULT_CACHE,
) -> None:
    """Write an authority, a server's certificate and one for each client."""
    names = list(client or [])
    if config is not None:
        from hcqsfl import build
        from hcqsfl import config as settings
        from hcqsfl.deployment import share

        resolved = settings.load(config)
        names += share.client_names(resolved, build.windows(resolved, cache))
    if not names:
        raise ValueError("name the clients with --client NAME, or their experiment with --config FILE")
    from hcqsfl.deployment import certificates

    hosts = host or ["localhost", "127.0.0.1"]
    written = certificates.make(folder, list(dict.fromkeys(names)), hosts, days)
    typer.echo(f"{len(written)} files in {folder}, for the server at {', '.join(hosts)} and {', '.join(names)}")
    typer.echo(f"Give each host ca.crt and its own .crt and .key; keep {folder / 'ca.key'} where it is.")


def serve(
    config: ConfigArgument,
    set_: SetOption = None,
    seed: SeedOption = None,
    out: OutOption = None,
    cache: CacheOption = DEFAULT_CACHE,
    resume: ResumeOption = False,
    overwrite: OverwriteOption = False,
    listen: Annotated[str | None, typer.Option(help="host:port to listen at; port 0 takes one that is free.")] = None,
    certs: CertsOption = None,
    insecure: InsecureOption = False,
    log: LogOption = None,
    json_: JsonOption = False,
) -> None:
    """Run an experiment's server: the trunk, the rounds, the scores. Clients are processes elsewhere."""
    resolved = _settings(config, overrides(set_, seed), listen=listen, certificates=certs, insecure=insecure)
    from hcqsfl.deployment import core_log

    folder = out or Path("runs") / config.stem
    with core_log.tapped(), shown_progress() as progress:
        from hcqsfl.deployment.journal import Journal
        from hcqsfl.deployment.serve import serve as run

        result = run(
            resolved,
            folder,
            cache=cache,
            journal=Journal(log, "server"),
            resume=resume,
            overwrite=overwrite,
            command=command_line(),
            progress=progress,
        )
    if result is None:
        typer.echo("stopped; the same command with --resume goes on from the last round", err=True)
        return
    show_result(result, folder, json_)


def client(
    config: ConfigArgument,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of the recordings, or of the share that `hcqsfl deal` wrote; default data.root."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Who this is; a dealt folder says it itself.")] = None,
    set_: SetOption = None,
    seed: SeedOption = None,
    cache: CacheOption = DEFAULT_CACHE,
    server: Annotated[str | None, typer.Option(help="host:port of the server.")] = None,
    certs: CertsOption = None,
    insecure: InsecureOption = False,
    log: LogOption = None,
) -> None:
    """Run one client: its windows stay in this process, and, U-shaped, its labels too."""
    resolved = _settings(config, overrides(set_, seed), server=server, certificates=certs, insecure=insecure)
    from hcqsfl.deployment import device, share
    from hcqsfl.deployment.address import Address
    from hcqsfl.deployment.journal import Journal

    if data is not None:
        root = {"root": data.resolve(), "synthetic": None}
        resolved = resolved.model_copy(update={"data": resolved.data.model_copy(update=root)})
    if name is None and share.is_dealt(resolved.data.path):
        name = resolved.data.path.resolve().name
    if name is None:
        raise ValueError("say who this client is with --name, one of the names that windows are dealt out to")
    policy = resolved.deployment
    address = Address.parse(policy.server or policy.listen)
    seen = device.run(resolved, name, address, cache, Journal(log, name))
    typer.echo(f"{name}: the federation is over" if seen else f"{name}: stopped", err=True)


def up(
    config: ConfigArgument,
    clients: Annotated[int | None, typer.Option(min=1, help="How many clients; default as the settings say.")] = None,
    set_: SetOption = None,
    seed: SeedOption = None,
    out: OutOption = None,
    cache: CacheOption = DEFAULT_CACHE,
    resume: ResumeOption = False,
    overwrite: OverwriteOption = False,
    insecure: InsecureOption = False,
    restarts: Annotated[int, typer.Option(min=0, help="How often a process that was killed is begun again.")] = 10,
    json_: JsonOption = False,
) -> None:
    """Run a whole federation on this machine, a process for the server and for each client."""
    changed = [*overrides(set_, seed), *([f"federation.n_clients={clients}"] if clients else [])]
    resolved = _settings(config, changed, insecure=insecure)
    from hcqsfl.deployment.up import Up
    from hcqsfl.evaluation.result import Result

    folder = out or Path("runs") / config.stem
    whole = Up(resolved, folder, cache=cache, resume=resume, overwrite=overwrite, restarts=restarts)
    with _live() as show:
        whole.run(show)
    show_result(Result.load(folder / "result.json"), folder, json_)


def status(
    config: Annotated[Path | None, typer.Argument(help="The experiment whose server runs on this machine.")] = None,
    port: Annotated[int | None, typer.Option(help="Port of the metrics, if not as the settings say.")] = None,
    json_: JsonOption = False,
) -> None:
    """Say how a server on this machine stands."""
    from hcqsfl.deployment.metrics import fetch

    facts = fetch(port or (_settings(config, []).deployment.metrics_port if config else 7480))
    if json_:
        typer.echo(json.dumps(facts, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    server = facts["server"]
    shown = Table(
        title=f"{server.get('clients', 0):.0f} clients, {server.get('rounds', 0):.0f} rounds, loss "
        f"{server.get('training_loss', float('nan')):.4g}",
        caption=f"lost in their turn: {server.get('lost', 0):.0f}; refused: "
        + (", ".join(f"{reason} {n:.0f}" for reason, n in facts["refused"].items()) or "none"),
    )
    for column in ("client", "messages", "up", "down"):
        shown.add_column(column, justify="left" if column == "client" else "right")
    for name, row in sorted(facts["clients"].items()):
        up_, down = (_bytes(row.get(f"bytes_{way}", 0)) for way in ("up", "down"))
        shown.add_row(name, f"{row.get('messages', 0):,.0f}", up_, down)
    Console().print(shown)


def deal(
    config: ConfigArgument,
    out: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write to: one below it for each client.")],
    set_: SetOption = None,
    cache: CacheOption = DEFAULT_CACHE,
) -> None:
    """Write each client's own training windows to a folder of its own, to be taken to its host."""
    resolved = _settings(config, overrides(set_, None))
    from hcqsfl.deployment import share

    for path in share.deal(resolved, out, cache):
        typer.echo(str(path))


def _settings(config: Path, changed: list[str], *, insecure: bool = False, **given: Any) -> Any:
    from hcqsfl import config as settings

    changed += [f"deployment.{key}={json.dumps(str(value))}" for key, value in given.items() if value is not None]
    resolved = settings.load(config, [*changed, *(["deployment.insecure=true"] if insecure else [])])
    if resolved.deployment.insecure:
        typer.echo("warning: no TLS; whoever is on this machine can read and write what crosses", err=True)
    return resolved


@contextmanager
def _live() -> Iterator[Any]:
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(stderr=True), refresh_per_second=4, transient=False) as live:
        yield lambda state: live.update(_table(state))


def _table(state: "State") -> Any:
    from rich.table import Table

    restarted = [f"{name} {what}" for name, what in state.clients.items() if "again" in what]
    running = sum(what != "done" for what in state.clients.values())
    shown = Table(
        title=f"round {state.done} of {state.total or '?'}; {running} client processes, {state.connected} connected",
        caption="; ".join(restarted) or None,
    )
    for column in ("training", "round", "loss", "messages", "up", "down", "seconds"):
        shown.add_column(column, justify="left" if column == "training" else "right")
    for name, row in state.rows.items():
        loss = "-" if row["train_loss"] is None else f"{row['train_loss']:.4f}"
        way = [_bytes(row["bytes_up"]), _bytes(row["bytes_down"])]
        shown.add_row(name, str(row["round"]), loss, f"{row['messages']:,}", *way, f"{row['seconds']:.2f}")
    return shown


def _bytes(n: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000 or unit == "GB":
            return f"{n:.0f} {unit}" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1000
    return ""
