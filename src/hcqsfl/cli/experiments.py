"""Train, report, and say what there is."""

import json
from pathlib import Path
from typing import Annotated

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
)


def register(app: typer.Typer) -> None:
    """Add these commands."""
    for command in (train, cross, codecs, report, info):
        app.command()(command)


def train(
    config: Annotated[Path, typer.Argument(help="A TOML file of settings; see configs/.")],
    set_: SetOption = None,
    seed: SeedOption = None,
    out: OutOption = None,
    cache: CacheOption = DEFAULT_CACHE,
    resume: ResumeOption = False,
    overwrite: OverwriteOption = False,
    jobs: Annotated[int, typer.Option(min=1, help="Trainings at a time; the results are the same.")] = 1,
    json_: JsonOption = False,
) -> None:
    """Train every arm of an experiment beside its controls, score it, and write a report."""
    from hcqsfl import config as settings

    resolved = settings.load(config, overrides(set_, seed))
    folder = out or Path("runs") / config.stem

    from hcqsfl.recipes.train import train as run

    with shown_progress() as progress:
        result = run(
            resolved,
            folder,
            cache=cache,
            resume=resume,
            overwrite=overwrite,
            command=command_line(),
            n_processes=jobs,
            progress=progress,
        )
    show_result(result, folder, json_)


def cross(
    config: Annotated[Path, typer.Argument(help="A TOML file that names several data sets' configs.")],
    set_: SetOption = None,
    seed: SeedOption = None,
    out: OutOption = None,
    cache: CacheOption = DEFAULT_CACHE,
    resume: ResumeOption = False,
    overwrite: OverwriteOption = False,
    json_: JsonOption = False,
) -> None:
    """Federate clients of several data sets around one trunk, beside each data set alone."""
    from hcqsfl import config as settings

    resolved = settings.load_cross(config, overrides(set_, seed))
    folder = out or Path("runs") / config.stem

    from rich.console import Console

    from hcqsfl.evaluation.console import table
    from hcqsfl.recipes.cross import cross as run

    with shown_progress() as progress:
        results = run(
            resolved,
            folder,
            cache=cache,
            resume=resume,
            overwrite=overwrite,
            command=command_line(),
            progress=progress,
        )
    if json_:
        typer.echo(json.dumps({name: json.loads(result.to_json()) for name, result in results.items()}, indent=2))
        return
    console = Console()
    for result in results.values():
        console.print(table(result))
    console.print(f"Report: {folder / 'report.html'}", markup=False, highlight=False, soft_wrap=True)


def codecs(
    config: Annotated[Path, typer.Argument(help="A TOML file of settings; its codec is replaced by each in turn.")],
    set_: SetOption = None,
    seed: SeedOption = None,
    out: OutOption = None,
    cache: CacheOption = DEFAULT_CACHE,
    resume: ResumeOption = False,
    overwrite: OverwriteOption = False,
    json_: JsonOption = False,
) -> None:
    """Train the chosen trunk with each codec of the cut: accuracy against bytes in one table."""
    from hcqsfl import config as settings

    resolved = settings.load(config, overrides(set_, seed))
    folder = out or Path("runs") / f"{config.stem}_codecs"

    from hcqsfl.evaluation.console import codec_table
    from hcqsfl.recipes.codecs import codecs as run
    from hcqsfl.recipes.codecs import to_json

    with shown_progress() as progress:
        rows = run(
            resolved,
            folder,
            cache=cache,
            resume=resume,
            overwrite=overwrite,
            command=command_line(),
            progress=progress,
        )
    if json_:
        typer.echo(to_json(rows), nl=False)
        return
    from rich.console import Console

    console = Console()
    console.print(codec_table([(row.codec, row.cut_bytes, row.share, row.metrics) for row in rows]))
    console.print(f"Table: {folder / 'codecs.csv'}", markup=False, highlight=False, soft_wrap=True)


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of finished runs.")],
    out: Annotated[Path | None, typer.Option(help="The page to write; default report.html in the first run.")] = None,
    tables: Annotated[Path | None, typer.Option(help="Also write results.csv, .tex and .md to this folder.")] = None,
) -> None:
    """Write a self-contained HTML page about one run, or about several side by side."""
    from hcqsfl.evaluation.report import write_report, write_tables

    page = write_report(runs, out or runs[0] / "report.html")
    typer.echo(f"Report: {page}")
    if tables is not None:
        tables.mkdir(parents=True, exist_ok=True)
        typer.echo(f"Tables: {', '.join(map(str, write_tables(runs, tables)))}")


def info(json_: JsonOption = False) -> None:
    """Say what is installed, and what there is to choose from."""
    from hcqsfl.recipes.info import describe

    facts = describe()
    if json_:
        typer.echo(json.dumps(facts, indent=2))
        return
    for section, entries in facts.items():
        typer.echo(f"{section}")
        for name, value in entries.items():
            typer.echo(f"  {name:<24} {value}")
