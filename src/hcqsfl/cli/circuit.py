"""Draw and export quantum circuits."""

from pathlib import Path
from typing import Annotated, Any

import typer

from hcqsfl.cli.common import sub_app

app = sub_app("Draw and export quantum circuits.")

Source = Annotated[str, typer.Argument(help="A circuit (`hcqsfl info` lists them), or the folder of a run.")]
Qubits = Annotated[int, typer.Option(help="Qubits, for a circuit that is named.")]
Layers = Annotated[int, typer.Option(help="Layers, for a circuit that is named.")]
Which = Annotated[str | None, typer.Option(help="ARM/SEED/FOLD of the training, for a run; default its first hybrid.")]


@app.command("draw")
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


@app.command("export")
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
