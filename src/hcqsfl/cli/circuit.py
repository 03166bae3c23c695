"""Draw, export, run elsewhere and diagnose quantum circuits."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from hcqsfl.cli.common import DEFAULT_CACHE, CacheOption, JsonOption, print_table, shown_progress, sub_app

app = sub_app("Draw, export, run elsewhere and diagnose quantum circuits.")

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


@app.command("run")
def circuit_run(
    source: Source,
    qubits: Qubits = 4,
    layers: Layers = 2,
    training: Which = None,
    backend: Annotated[str, typer.Option(help="aer, or the name of an IBM machine that you have access to.")] = "aer",
    shots: Annotated[int | None, typer.Option(help="Of each measurement; exact values unless given.")] = None,
    rows: Annotated[int, typer.Option(min=1, help="Test rows of the run (or random inputs of a named circuit).")] = 8,
    cache: CacheOption = DEFAULT_CACHE,
    json_: JsonOption = False,
) -> None:
    """Run the trained layer on Qiskit's Aer, or on hardware, beside its own values."""
    from dataclasses import asdict

    from hcqsfl.quantum.circuit import in_layers
    from hcqsfl.recipes import run_circuit as recipe

    with shown_progress() as progress:
        if Path(source).is_dir():
            given = recipe.of_run(Path(source), *_training(training), n_rows=rows, cache=cache, say=progress.say)
        else:
            given = recipe.of_registry(source, qubits, layers, rows)
        progress.say(f"running on {backend}")
        found = recipe.run_circuit(*given, backend=backend, shots=shots)
    if json_:
        typer.echo(json.dumps(asdict(found), indent=2))
        return
    table = [
        {
            "observable": name,
            "hcqsfl, first sample": f"{ours[0]:+.6f}",
            f"{backend}, first sample": f"{theirs[0]:+.6f}",
            "largest difference": f"{max(abs(a - b) for a, b in zip(ours, theirs, strict=True)):.2g}",
        }
        for name, ours, theirs in zip(
            found.observables, zip(*found.ours, strict=True), zip(*found.theirs, strict=True), strict=True
        )
    ]
    how = f"{shots} shots" if shots else "exact"
    chance = f" ({found.by_chance:.2g} by chance)" if shots else ""
    print_table(
        f"{found.circuit}, {found.n_qubits} qubits, {in_layers(found.n_layers)}: {backend}, {how}",
        table,
        f"{len(found.ours)} samples; largest difference {found.largest:.2g}, root mean square {found.rms:.2g}{chance}",
    )


@app.command("diagnose")
def circuit_diagnose(
    circuits: Annotated[list[str] | None, typer.Argument(help="Circuits; all of them unless named.")] = None,
    qubits: Annotated[list[int] | None, typer.Option(help="Numbers of qubits; default 2 4 6 8.")] = None,
    layers: Annotated[list[int] | None, typer.Option(help="Numbers of layers; default 1 3.")] = None,
    samples: Annotated[int, typer.Option(help="Random circuits for gradients and entanglement.")] = 500,
    pairs: Annotated[int, typer.Option(help="Pairs of states for the expressibility.")] = 5000,
    fisher: Annotated[int, typer.Option(help="Weights, and inputs of each, for the effective dimension.")] = 40,
    seed: Annotated[int, typer.Option(help="Same seed, same draws.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder for table and figure.")] = Path("runs/diagnostics"),
    json_: JsonOption = False,
) -> None:
    """Gradient variance, expressibility, entanglement and effective dimension of circuits, before any data are seen."""
    from hcqsfl.recipes.circuit_diagnostics import diagnose_circuits

    with shown_progress() as progress:
        found = diagnose_circuits(
            circuits or [],
            qubits or [2, 4, 6, 8],
            layers or [1, 3],
            seed=seed,
            n_samples=samples,
            n_pairs=pairs,
            n_fisher=fisher,
            out=out,
            progress=progress,
        )
    if json_:
        typer.echo((out / "diagnostics.json").read_text(encoding="utf-8"), nl=False)
        return
    shown = {
        "circuit": "circuit",
        "n_qubits": "n",
        "n_layers": "L",
        "n_weights": "weights",
        "gradient_variance_mean": "gradient variance",
        "expressibility": "from Haar, nats",
        "entanglement": "entanglement",
        "effective_dimension": "eff. dimension",
    }
    rows = [{title: _number(row[key]) for key, title in shown.items()} for row in found.rows()]
    print_table("Circuits with random weights and inputs", rows)
    for name, factor in found.decays.items():
        typer.echo(f"{name}: one qubit more multiplies the gradient's variance by {factor:.2f}")
    for why in found.skipped:
        typer.echo(f"Left out: {why}")
    typer.echo(f"Table and figure: {out / 'diagnostics.csv'}, {out / 'diagnostics.svg'}")


def _number(value: Any) -> str:
    return "-" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def _circuit(source: str, qubits: int, layers: int, training: str | None) -> Any:
    from hcqsfl.recipes import circuit

    if not Path(source).is_dir():
        return circuit.fresh(source, qubits, layers)
    return circuit.trained(Path(source), *_training(training))


def _training(training: str | None) -> tuple[str, int | None, str | None]:
    arm, _, rest = (training or "hybrid").partition("/")
    seed, _, fold = rest.partition("/")
    if not arm or (seed and not seed.isdecimal()):
        raise ValueError(f"--training is ARM/SEED/FOLD, not {training!r}")
    return arm, int(seed) if seed else None, fold or None
