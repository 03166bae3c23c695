"""Test what a run trained on a noisier machine."""

from pathlib import Path
from typing import Annotated

import typer

from hcqsfl.cli.common import DEFAULT_CACHE, CacheOption, JsonOption, print_table, shown_progress


def noise(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    arm: Annotated[str, typer.Option(help="Whose networks: hybrid, or frozen.")] = "hybrid",
    metric: Annotated[str, typer.Option(help="What is scored.")] = "macro_f1",
    kind: Annotated[
        list[str] | None,
        typer.Option(
            help="depolarising, amplitude_damping, phase_damping or readout; all unless given. May be repeated."
        ),
    ] = None,
    strength: Annotated[list[float] | None, typer.Option(help="Probability; may be repeated.")] = None,
    shots: Annotated[list[int] | None, typer.Option(help="Shots of a perfect machine; may be repeated.")] = None,
    rows: Annotated[
        int | None, typer.Option(min=2, help="Test rows of each training, drawn; all unless given.")
    ] = None,
    trajectories: Annotated[int, typer.Option(help="Of circuits of more than 6 qubits.")] = 100,
    seed: Annotated[int, typer.Option(help="Of shots, trajectories and resampling.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for table and figure; default RUN/noise.")] = None,
    cache: CacheOption = DEFAULT_CACHE,
    json_: JsonOption = False,
) -> None:
    """Test a run's trained circuits again under noise and with few shots."""
    from hcqsfl.evaluation.classification import METRICS
    from hcqsfl.recipes import noise_sweep as recipe
    from hcqsfl.recipes import trained

    folder = out or run / "noise"
    with shown_progress() as progress:
        networks = list(trained.load(run, arm, cache=cache, n_rows=rows, say=progress.say))
        sweep = recipe.noise_sweep(
            networks,
            kinds=tuple(kind or recipe.KINDS),
            strengths=tuple(strength or recipe.STRENGTHS),
            shots=tuple(shots or recipe.SHOTS),
            metric=metric,
            n_trajectories=trajectories,
            seed=seed,
            synthetic=networks[0].synthetic,
            out=folder,
            progress=progress,
        )
    if json_:
        typer.echo((folder / "noise_sweep.json").read_text(encoding="utf-8"), nl=False)
        return
    table = [
        {
            "noise": point.kind.replace("_", " "),
            "level": f"{point.level:g}",
            METRICS[metric].title: "-" if point.score.value is None else f"{point.score.value:.3f}",
            "95 % interval": "-" if point.score.low is None else f"{point.score.low:.3f} to {point.score.high:.3f}",
        }
        for point in sweep.points
    ]
    print_table(
        f"{arm} under noise{' (SYNTHETIC)' if sweep.synthetic else ''}",
        table,
        f"{sweep.n_rows} test rows, {sweep.n_seeds} seed(s)",
    )
    typer.echo(f"Table and figure: {folder / 'noise_sweep.csv'}, {folder / 'noise_sweep.svg'}")
