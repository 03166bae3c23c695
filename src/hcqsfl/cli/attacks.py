"""Attack what was trained."""

import json
from pathlib import Path
from typing import Annotated

import typer

from hcqsfl.cli.common import DEFAULT_CACHE, CacheOption, JsonOption, command_line, shown_progress


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(attack)


def attack(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")],
    suite: Annotated[str, typer.Option(help="privacy, poisoning, evasion or all.")] = "privacy",
    profile: Annotated[str, typer.Option(help="smoke (minutes) or paper (hours).")] = "smoke",
    only: Annotated[list[str] | None, typer.Option("--only", help="Run this attack alone; may be repeated.")] = None,
    arm: Annotated[list[str] | None, typer.Option("--arm", help="Attack this arm; may be repeated.")] = None,
    option: Annotated[
        list[str] | None, typer.Option("--option", help="property=level:CHANNEL, say; may be repeated.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Forget rows that are there already.")] = False,
    cache: CacheOption = DEFAULT_CACHE,
    json_: JsonOption = False,
) -> None:
    """Attack a finished run: what can be learnt from what crossed, and how it can be misled."""
    from dataclasses import asdict

    from hcqsfl.config import read_options
    from hcqsfl.recipes.attack import attack as execute

    options = read_options(option or ())
    with shown_progress() as progress:
        rows = execute(
            run,
            suite,
            profile,
            cache=cache,
            overwrite=overwrite,
            only=only or (),
            arms=arm or (),
            options=options,
            command=command_line(),
            progress=progress,
        )
    if json_:
        typer.echo(json.dumps([asdict(row) | {"leaks": row.leaks} for row in rows], indent=2))
        return
    from rich.console import Console

    from hcqsfl.evaluation.console import attack_table

    console = Console()
    console.print(attack_table(rows))
    page = run / "attacks" / f"report-{profile}.html"
    console.print(f"Report: {page}", markup=False, highlight=False, soft_wrap=True)
