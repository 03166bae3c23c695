"""What all commands share: heavy imports stand inside functions, so that ``--help`` answers at once."""

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from hcqsfl.recipes.progress import Progress

SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Set one setting anew; may be repeated."),
]
SeedOption = Annotated[int | None, typer.Option(help="Train with this seed alone.")]
OutOption = Annotated[Path | None, typer.Option(help="Folder of the run; default runs/CONFIG.")]
CacheOption = Annotated[Path, typer.Option(help="Folder of parsed windows.")]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace the run in the folder.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print it as JSON.")]

DEFAULT_CACHE = Path(".cache/hcqsfl")


def sub_app(text: str) -> typer.Typer:
    """Return a group of commands."""
    return typer.Typer(help=text, no_args_is_help=True, rich_markup_mode=None)


def overrides(set_: list[str] | None, seed: int | None) -> list[str]:
    """Return the settings that the command line sets anew."""
    return [*(set_ or []), *([f"evaluation.seeds=[{seed}]"] if seed is not None else [])]


def read_options(given: list[str] | None) -> dict[str, Any]:
    """Return ``key=value`` pairs as a mapping."""
    from hcqsfl import config

    return config.read_options(given or [])


def command_line() -> str:
    """Return what was typed, for the report."""
    import shlex

    return shlex.join(["hcqsfl", *sys.argv[1:]])


def print_table(title: str, rows: Sequence[Mapping[str, str]], caption: str = "") -> None:
    """Print rows of one kind, all with the same keys; the first column gives way where a line is too short."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    laid = Table(title=escape(title), caption=escape(caption), show_lines=any("\n" in v for v in rows[0].values()))
    for i, column in enumerate(rows[0] if rows else ()):
        laid.add_column(escape(column), justify="right" if i else "left", no_wrap=bool(i))
    for row in rows:
        laid.add_row(*map(escape, row.values()))
    Console().print(laid)


@contextlib.contextmanager
def shown_progress() -> "Iterator[Progress]":
    """Show a bar on standard error, so that standard output holds the answer alone."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    from hcqsfl.recipes.progress import Progress

    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()]
    with Bars(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bars:
        bar = bars.add_task("starting", total=None)

        def step(job: str, row: dict[str, Any] | None) -> None:
            score = "" if not row or not row["validation"] else f"  validation F1 {row['validation']['macro_f1']:.3f}"
            bars.update(bar, advance=1, description=f"{job}{score}")

        yield Progress(
            say=lambda text: bars.update(bar, description=text),
            start=lambda total: bars.reset(bar, total=total),
            step=step,
        )


def show_result(result: Any, folder: Path, json_: bool) -> None:
    """Print what came out of a training: its table, its notes and where its report is; or all of it as JSON."""
    if json_:
        typer.echo(result.to_json(), nl=False)
        return
    from rich.console import Console

    from hcqsfl.evaluation.console import table

    console = Console()
    console.print(table(result))
    for note in result.notes:
        console.print(f"• {note}", markup=False, highlight=False)
    console.print(f"Report: {folder / 'report.html'}", markup=False, highlight=False, soft_wrap=True)
