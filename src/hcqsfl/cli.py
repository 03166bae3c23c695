"""The command line. Heavy imports stand inside the commands, so that ``--help`` answers at once."""

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from hcqsfl.recipes.train import Progress

app = typer.Typer(
    name="hcqsfl",
    help="Hybrid classical-quantum split federated learning (HCQ-SFL) on Internet-of-Medical-Things data.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
data_app = typer.Typer(
    help="Look at, fetch, check and make up recordings.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(data_app, name="data")
circuit_app = typer.Typer(help="Draw and export quantum circuits.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(circuit_app, name="circuit")

Options = Annotated[
    list[str] | None, typer.Option("--option", metavar="KEY=VALUE", help="What the loader takes; may be repeated.")
]


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="A TOML file of settings; see configs/.")],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Set one setting anew; may be repeated."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Train with this seed alone.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; default runs/CONFIG.")] = None,
    cache: Annotated[Path, typer.Option(help="Folder of parsed windows.")] = Path(".cache/hcqsfl"),
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in the folder.")] = False,
    jobs: Annotated[int, typer.Option(min=1, help="Trainings at a time; the results are the same.")] = 1,
    json_: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Train every arm of an experiment beside its controls, score it, and write a report."""
    from hcqsfl import config as settings

    overrides = [*(set_ or []), *([f"evaluation.seeds=[{seed}]"] if seed is not None else [])]
    resolved = settings.load(config, overrides)
    folder = out or Path("runs") / config.stem

    from hcqsfl.evaluation.console import table
    from hcqsfl.recipes.train import train as run

    with _progress() as progress:
        result = run(
            resolved,
            folder,
            cache=cache,
            resume=resume,
            overwrite=overwrite,
            command=_command(),
            n_processes=jobs,
            progress=progress,
        )
    if json_:
        typer.echo(result.to_json(), nl=False)
        return
    from rich.console import Console

    console = Console()
    console.print(table(result))
    for note in result.notes:
        console.print(f"• {note}", markup=False, highlight=False)
    console.print(f"Report: {folder / 'report.html'}", markup=False, highlight=False, soft_wrap=True)


@app.command()
def cross(
    config: Annotated[Path, typer.Argument(help="A TOML file that names several data sets' configs.")],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Set one setting anew; may be repeated."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Train with this seed alone.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; default runs/CONFIG.")] = None,
    cache: Annotated[Path, typer.Option(help="Folder of parsed windows.")] = Path(".cache/hcqsfl"),
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in the folder.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
) -> None:
    """Federate clients of several data sets around one trunk, beside each data set alone."""
    from hcqsfl import config as settings

    overrides = [*(set_ or []), *([f"evaluation.seeds=[{seed}]"] if seed is not None else [])]
    resolved = settings.load_cross(config, overrides)
    folder = out or Path("runs") / config.stem

    from rich.console import Console

    from hcqsfl.evaluation.console import table
    from hcqsfl.recipes.cross import cross as run

    with _progress() as progress:
        results = run(
            resolved,
            folder,
            cache=cache,
            resume=resume,
            overwrite=overwrite,
            command=_command(),
            progress=progress,
        )
    if json_:
        typer.echo(json.dumps({name: json.loads(result.to_json()) for name, result in results.items()}, indent=2))
        return
    console = Console()
    for result in results.values():
        console.print(table(result))
    console.print(f"Report: {folder / 'report.html'}", markup=False, highlight=False, soft_wrap=True)


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of finished runs.")],
    out: Annotated[Path | None, typer.Option(help="The page to write; default report.html in the first run.")] = None,
    tables: Annotated[Path | None, typer.Option(help="Also write results.csv and results.tex to this folder.")] = None,
) -> None:
    """Write a self-contained HTML page about one run, or about several side by side."""
    from hcqsfl.evaluation.report import write_report, write_tables

    page = write_report(runs, out or runs[0] / "report.html")
    typer.echo(f"Report: {page}")
    if tables is not None:
        tables.mkdir(parents=True, exist_ok=True)
        write_tables(runs, tables)
        typer.echo(f"Tables: {tables / 'results.csv'}, {tables / 'results.tex'}")


@app.command()
def info(json_: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False) -> None:
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


@data_app.command("list")
def data_list(json_: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False) -> None:
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


@data_app.command("inspect")
def data_inspect(
    name: Annotated[str, typer.Argument(help="A data set; `hcqsfl data list` shows them.")],
    root: Annotated[Path, typer.Argument(help="Its folder.")],
    option: Options = None,
    json_: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Read recordings and show what is in them."""
    from hcqsfl.recipes.inspect import inspect

    with _progress() as progress:
        facts = inspect(name, root, _options(option), progress.say)
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


@data_app.command("synth")
def data_synth(
    name: Annotated[str, typer.Argument(help="wesad, pamap2, mimic_waveform, ton_iot, or all.")],
    root: Annotated[Path, typer.Argument(help="Folder to write to.")],
    size: Annotated[str, typer.Option(help="tiny, small or full.")] = "small",
    seed: Annotated[int, typer.Option(help="Same seed, same bytes.")] = 0,
) -> None:
    """Write made-up recordings in an official format, stamped SYNTHETIC."""
    from hcqsfl.data import synthetic

    names = sorted(synthetic.WRITERS) if name == "all" else [name]
    with _progress() as progress:
        for each in names:
            progress.say(f"writing synthetic {each}")
            folder = root / each if name == "all" else root
            paths = synthetic.write(each, folder, seed=seed, size=size)  # type: ignore[arg-type]
            typer.echo(f"SYNTHETIC {each}: {len(paths)} files in {folder}")


@data_app.command("fetch")
def data_fetch(
    name: Annotated[str, typer.Argument(help="A data set; `hcqsfl data list` shows them.")],
    root: Annotated[Path, typer.Argument(help="Folder to put it in.")],
) -> None:
    """Download a data set from where its authors publish it, after you have read its licence."""
    from hcqsfl.data import fetch

    with _progress() as progress:
        paths = fetch.fetch(name, root, progress=progress.say)
    typer.echo(f"{name}: {len(paths)} files in {root}")


@data_app.command("verify")
def data_verify(
    name: Annotated[str, typer.Argument(help="A data set; `hcqsfl data list` shows them.")],
    root: Annotated[Path, typer.Argument(help="Its folder.")],
    json_: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
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


Source = Annotated[str, typer.Argument(help="A circuit (`hcqsfl info` lists them), or the folder of a run.")]
Qubits = Annotated[int, typer.Option(help="Qubits, for a circuit that is named.")]
Layers = Annotated[int, typer.Option(help="Layers, for a circuit that is named.")]
Which = Annotated[str | None, typer.Option(help="ARM/SEED/FOLD of the training, for a run; default its first hybrid.")]


@circuit_app.command("draw")
def circuit_draw(
    source: Source,
    qubits: Qubits = 4,
    layers: Layers = 2,
    training: Which = None,
    out: Annotated[Path | None, typer.Option(help="A picture to write (.png, .svg, .pdf) instead of text.")] = None,
) -> None:
    """Draw a circuit, with its trained angles where a run is named."""
    from hcqsfl.quantum import draw

    circuit, weights = _circuit(source, qubits, layers, training)
    shown = weights if Path(source).is_dir() else None
    if out is None:
        typer.echo(draw.text(circuit, shown))
        return
    draw.figure(circuit, shown).savefig(out)
    typer.echo(f"Drawing: {out}")


@circuit_app.command("export")
def circuit_export(
    source: Source,
    qubits: Qubits = 4,
    layers: Layers = 2,
    training: Which = None,
    out: Annotated[Path | None, typer.Option(help="File to write; default standard output.")] = None,
) -> None:
    """Write a circuit as OpenQASM 3, its weights bound and its inputs as parameters."""
    from hcqsfl.quantum import export

    program = export.openqasm(*_circuit(source, qubits, layers, training))
    if out is None:
        typer.echo(program, nl=False)
        return
    export.save_openqasm(out, program)
    typer.echo(f"OpenQASM 3: {out}")


def _circuit(source: str, qubits: int, layers: int, training: str | None) -> Any:
    from hcqsfl.recipes import circuit

    if not Path(source).is_dir():
        return circuit.fresh(source, qubits, layers)
    arm, _, rest = (training or "hybrid").partition("/")
    seed, _, fold = rest.partition("/")
    if seed and not seed.isdecimal():
        raise ValueError(f"--training is ARM/SEED/FOLD, not {training!r}")
    return circuit.trained(Path(source), arm, int(seed) if seed else None, fold or None)


def _options(given: list[str] | None) -> dict[str, Any]:
    from hcqsfl.config import read_options

    return read_options(given or [])


def _command() -> str:
    import shlex

    return shlex.join(["hcqsfl", *sys.argv[1:]])


@contextlib.contextmanager
def _progress() -> "Iterator[Progress]":
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


def guarded(run: Callable[[], None]) -> int:
    """Run a command; turn what a user can mend into one line on standard error and a status."""
    try:
        run()
    except (ValueError, OSError, FloatingPointError, MemoryError) as error:
        if os.environ.get("HCQSFL_DEBUG"):
            raise
        text = str(error) or type(error).__name__
        sys.stderr.write(f"hcqsfl: {text}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("hcqsfl: interrupted; the same command with --resume goes on from the last round\n")
        return 130
    return 0


def main() -> None:
    """Start here. ``HCQSFL_DEBUG=1`` shows the traceback of an error."""
    sys.exit(guarded(app))


if __name__ == "__main__":
    main()
