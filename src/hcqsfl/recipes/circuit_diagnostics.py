"""Diagnose circuits over numbers of qubits and layers: a table and a figure."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hcqsfl.evaluation.figures import MARKERS, PALETTE
from hcqsfl.evaluation.files import write_whole
from hcqsfl.quantum import circuits, draw
from hcqsfl.quantum.circuit import in_layers
from hcqsfl.quantum.diagnostics import Diagnosis, decay, diagnose
from hcqsfl.recipes.progress import Progress
from hcqsfl.registry import lookup

COLUMNS = (
    "circuit",
    "n_qubits",
    "n_layers",
    "n_weights",
    "gradient_variance_first",
    "gradient_variance_mean",
    "expressibility",
    "entanglement",
    "effective_dimension",
)


@dataclass(frozen=True)
class Diagnostics:
    """What was found of every circuit and size.

    Attributes:
        found: one diagnosis a circuit and size.
        decays: by circuit and layers, the factor by which one qubit more multiplies the gradient's variance.
        skipped: sizes that a circuit cannot have, and why.
        seed: of all draws.
    """

    found: tuple[Diagnosis, ...]
    decays: dict[str, float]
    skipped: tuple[str, ...]
    seed: int

    def rows(self) -> list[dict[str, Any]]:
        """Return the table, one dictionary a circuit and size with the keys ``COLUMNS``."""
        return [
            dict(
                zip(
                    COLUMNS,
                    (
                        d.name,
                        d.n_qubits,
                        d.n_layers,
                        d.n_weights,
                        d.gradient.first if d.gradient else None,
                        d.gradient.mean if d.gradient else None,
                        d.expressibility,
                        d.entanglement,
                        d.effective_dimension,
                    ),
                    strict=True,
                )
            )
            for d in self.found
        ]


def diagnose_circuits(
    names: Sequence[str],
    n_qubits: Sequence[int],
    n_layers: Sequence[int],
    *,
    seed: int = 0,
    n_samples: int = 500,
    n_pairs: int = 5000,
    n_fisher: int = 40,
    out: Path | None = None,
    progress: Progress | None = None,
) -> Diagnostics:
    """Diagnose circuits of the registry at every size.

    Args:
        names: circuits; all of them if empty.
        n_qubits, n_layers: the sizes.
        seed, n_samples, n_pairs, n_fisher: as ``diagnose``.
        out: folder for ``diagnostics.csv``, ``.json``, ``.svg`` and ``.png``; nothing is written if None.
        progress: told of each circuit and size.

    Raises:
        ValueError: a circuit is unknown, or none can have any of the sizes.
        OSError: ``out`` cannot be written to.
    """
    progress = progress or Progress()
    for name in names:
        lookup("circuit", circuits.CIRCUITS, name)
    made, skipped = [], []
    for name in names or sorted(circuits.CIRCUITS):
        for layers in n_layers:
            for qubits in n_qubits:
                try:
                    made.append(circuits.make(name, qubits, layers))
                except ValueError as error:
                    skipped.append(str(error))
    progress.start(len(made))
    found = []
    for circuit in made:
        options = {"n_samples": n_samples, "n_pairs": n_pairs, "n_fisher": n_fisher}
        found.append(diagnose(circuit, seed=seed, progress=progress.say, **options))
        progress.step(circuit.name, None)
    if not found:
        raise ValueError(f"no circuit can have these sizes: {'; '.join(skipped) or 'no size was given'}")
    result = Diagnostics(tuple(found), _decays(found), tuple(dict.fromkeys(skipped)), seed)
    if out is not None:
        write(result, out)
    return result


def _decays(found: Sequence[Diagnosis]) -> dict[str, float]:
    series: dict[str, list[Diagnosis]] = {}
    for d in found:
        if d.gradient and d.gradient.mean > 0:
            series.setdefault(f"{d.name}, {in_layers(d.n_layers)}", []).append(d)
    return {
        name: decay([d.gradient for d in members if d.gradient])
        for name, members in series.items()
        if len({d.n_qubits for d in members}) > 1
    }


def write(result: Diagnostics, out: Path) -> None:
    """Write table and figure into a folder."""
    out.mkdir(parents=True, exist_ok=True)
    sheet = io.StringIO()
    writer = csv.DictWriter(sheet, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(result.rows())
    write_whole(out / "diagnostics.csv", sheet.getvalue().encode())
    write_whole(out / "diagnostics.json", (json.dumps(asdict(result), indent=2) + "\n").encode())
    made = figure(result)
    for ending in ("svg", "png"):
        draw.save(made, out / f"diagnostics.{ending}")


def figure(result: Diagnostics) -> Figure:
    """Return four panels over the number of qubits, one line a circuit and number of layers."""
    made = Figure(figsize=(9.5, 6.5), layout="constrained")
    FigureCanvasAgg(made)
    panels = made.subplots(2, 2)
    columns = (
        ("gradient_variance_mean", "Gradient variance (mean over weights)", True),
        ("expressibility", "Divergence from Haar-random states, nats", True),
        ("entanglement", "Meyer-Wallach entanglement", False),
        ("effective_dimension", "Effective dimension", False),
    )
    names = sorted({d.name for d in result.found})
    depths = sorted({d.n_layers for d in result.found})
    for ax, (column, title, logarithmic) in zip(panels.flat, columns, strict=True):
        for name in names:
            for depth in depths:
                points = [
                    (row["n_qubits"], row[column])
                    for row in result.rows()
                    if (row["circuit"], row["n_layers"]) == (name, depth) and row[column] is not None
                ]
                if not points:
                    continue
                style = {"color": PALETTE[names.index(name) % len(PALETTE)], "linewidth": 1.2, "markersize": 5}
                marker = MARKERS[depths.index(depth) % len(MARKERS)]
                ax.plot(*zip(*sorted(points), strict=True), marker=marker, label=f"{name}, {in_layers(depth)}", **style)
        ax.set_title(title, fontsize=10, loc="left")
        ax.set_xlabel("qubits")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.spines[["top", "right"]].set_visible(False)
        if logarithmic:
            ax.set_yscale("log")
    handles: dict[str, Any] = {}
    for ax in panels.flat:
        handles |= {label: handle for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    columns_shown = 3 if len(handles) > 2 else max(1, len(handles))
    made.legend(handles.values(), handles, loc="outside lower center", ncols=columns_shown, fontsize=8, frameon=False)
    return made
