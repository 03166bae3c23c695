"""Look at, fetch, check and make up recordings."""

import json
from pathlib import Path
from typing import Annotated

import typer

from hcqsfl.cli.common import JsonOption, read_options, shown_progress, sub_app

app = sub_app("Look at, fetch, check and make up recordings.")

Options = Annotated[
    list[str] | None, typer.Option("--option", metavar="KEY=VALUE", help="What the loader takes; may be repeated.")
]


@app.command("list")
def data_list(json_: JsonOption = False) -> None:
    """Show the data sets that can be read, where they come from and what their licence asks."""
    from hcqsfl.data import DATASETS, dataset

    facts = {
        name: {field.lower(): getattr(dataset(name), field) for field in ("TITLE", "HOMEPAGE", "LICENCE", "CITATION")}
        for name in sorted(DATASETS)
    }
    if json_:
        typer.echo(json.dumps(facts, indent=2))
        return
    for name, entries in facts.items():
        typer.echo(f"{name}\n" + "\n".join(f"  {field:<9} {text}" for field, text in entries.items()) + "\n")


@app.command("inspect")
def data_inspect(
    name: Annotated[str, typer.Argument(help="A data set; `hcqsfl data list` shows them.")],
    root: Annotated[Path, typer.Argument(help="Its folder.")],
    option: Options = None,
    json_: JsonOption = False,
) -> None:
    """Read recordings and show what is in them."""
    from hcqsfl.recipes.inspect import inspect

    with shown_progress() as progress:
        facts = inspect(name, root, read_options(option), progress.say)
    if json_:
        typer.echo(json.dumps(facts, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    stamp = " (SYNTHETIC)" if facts["synthetic"] else ""
    shown = Table(title=f"{facts['title']}{stamp}", caption=f"Channels: {', '.join(facts['channels'])}")
    for column in ("subject", "recordings", "rate", "length", "missing", "by class"):
        shown.add_column(column)
    for row in facts["subjects"]:
        by_class = ", ".join(f"{label} {amount:g}" for label, amount in row["by_class"].items())
        unit = "s" if facts["clock"] else "rows"
        shown.add_row(
            row["subject"],
            str(row["recordings"]),
            f"{row['sfreq']:g} Hz" if facts["clock"] else "-",
            f"{row['length']:g} {unit}",
            f"{row['missing']:.1%}",
            by_class,
        )
    Console().print(shown)


@app.command("synth")
def data_synth(
    name: Annotated[str, typer.Argument(help="wesad, pamap2, mimic_waveform, ton_iot, or all.")],
    root: Annotated[Path, typer.Argument(help="Folder to write to.")],
    size: Annotated[str, typer.Option(help="tiny, small or full.")] = "small",
    seed: Annotated[int, typer.Option(help="Same seed, same bytes.")] = 0,
) -> None:
    """Write made-up recordings in an official format, stamped SYNTHETIC."""
    from hcqsfl.data import synthetic

    names = sorted(synthetic.WRITERS) if name == "all" else [name]
    with shown_progress() as progress:
        for each in names:
            progress.say(f"writing synthetic {each}")
            folder = root / each if name == "all" else root
            paths = synthetic.write(each, folder, seed=seed, size=size)  # type: ignore[arg-type]
            typer.echo(f"SYNTHETIC {each}: {len(paths)} files in {folder}")


@app.command("fetch")
def data_fetch(
    name: Annotated[str, typer.Argument(help="A data set; `hcqsfl data list` shows them.")],
    root: Annotated[Path, typer.Argument(help="Folder to put it in.")],
) -> None:
    """Download a data set from where its authors publish it, after you have read its licence."""
    from hcqsfl.data import fetch

    with shown_progress() as progress:
        paths = fetch.fetch(name, root, progress=progress.say)
    typer.echo(f"{name}: {len(paths)} files in {root}")


@app.command("verify")
def data_verify(
    name: Annotated[str, typer.Argument(help="A data set; `hcqsfl data list` shows them.")],
    root: Annotated[Path, typer.Argument(help="Its folder.")],
    json_: JsonOption = False,
) -> None:
    """Compare files with the sizes and checksums known of the official ones."""
    from dataclasses import asdict

    from hcqsfl.data import fetch

    checks = fetch.verify(name, root)
    if json_:
        typer.echo(json.dumps([asdict(check) for check in checks], indent=2, default=str))
    else:
        for check in checks:
            typer.echo(f"{check.status:<8} {check.path}  {check.message}")
    if any(check.status == "error" for check in checks):
        raise typer.Exit(1)
