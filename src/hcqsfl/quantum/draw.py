"""Drawings of a circuit: text for the terminal, a figure for a page.

Inputs are called ``x0, x1, ...`` and weights ``w0, w1, ...`` by their place in the flattened tensor; where the weights
are given, their values are written instead.
"""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from hcqsfl.evaluation.files import write_whole
from hcqsfl.quantum.circuit import Angle, Circuit, Gate

_TARGET = {"CNOT": "X", "CZ": "●", "CRX": "RX", "CRZ": "RZ"}


def label(angle: Angle, weights: Tensor | None = None) -> str:
    """Return an angle as text: ``2(x0-π)(x1-π)``, ``w3``, ``π/2``.

    Args:
        angle: which.
        weights: flat weights, to write their values.
    """
    factor, words = angle.scale, []
    if angle.weight is not None:
        if weights is None:
            words.append(f"w{angle.weight}")
        else:
            factor *= float(weights[angle.weight])
    shift = "" if not angle.shift else f"{'-' if angle.shift > 0 else '+'}{_number(abs(angle.shift))}"
    words += [f"(x{i}{shift})" if shift else f"x{i}" for i in angle.inputs]
    if not words:
        return _number(factor)
    product = words[0]
    for word in words[1:]:
        product += word if product.endswith(")") or word.startswith("(") else f"·{word}"
    sign = {1.0: "", -1.0: "-"}.get(factor)
    return f"{_number(factor)}{'' if product.startswith('(') else '·'}{product}" if sign is None else sign + product


def _number(value: float) -> str:
    part = Fraction(value / math.pi).limit_denominator(8)
    if part and abs(part) <= 4 and abs(float(part) * math.pi - value) < 1e-12:
        above = {1: "π", -1: "-π"}.get(part.numerator, f"{part.numerator}π")
        return above if part.denominator == 1 else f"{above}/{part.denominator}"
    return f"{value:.3g}"


@dataclass(frozen=True)
class Symbol:
    """What a gate draws: one word on each of its wires, joined by a line where there are two.

    Attributes:
        column: how far from the left.
        words: wire to what stands there; ``●`` is a control.
    """

    column: int
    words: dict[int, str]


def symbols(circuit: Circuit, weights: Tensor | None = None) -> list[Symbol]:
    """Return the gates, each in the first column where its wires and those that its line crosses are free."""
    flat = None if weights is None else weights.detach().reshape(-1)
    free = [0] * circuit.n_qubits
    found = []
    if circuit.start == "amplitudes":
        found.append(Symbol(0, dict.fromkeys(range(circuit.n_qubits), "|x>/|x|")))
        free = [1] * circuit.n_qubits
    for gate in circuit.gates:
        span = range(min(gate.wires), max(gate.wires) + 1)
        column = max(free[wire] for wire in span)
        for wire in span:
            free[wire] = column + 1
        found.append(Symbol(column, _words(gate, flat)))
    return found


def _words(gate: Gate, weights: Tensor | None) -> dict[int, str]:
    angles = ",".join(label(angle, weights) for angle in gate.angles)
    inside = f"({angles})" if angles else ""
    if len(gate.wires) == 1:
        return {gate.wires[0]: gate.name + inside}
    if gate.name == "RZZ":
        return {gate.wires[0]: f"ZZ{inside}", gate.wires[1]: f"ZZ{inside}"}
    return {gate.wires[0]: "●", gate.wires[1]: _TARGET[gate.name] + inside}


def text(circuit: Circuit, weights: Tensor | None = None, *, width: int = 100) -> str:
    """Return the circuit drawn in characters.

    Args:
        circuit: what to draw.
        weights: of any shape, to write their values instead of their names.
        width: characters of a line; a longer circuit goes on below.
    """
    drawn = symbols(circuit, weights)
    n, n_columns = circuit.n_qubits, max((symbol.column for symbol in drawn), default=-1) + 1
    ends = _ends(circuit)
    columns = [_column([s for s in drawn if s.column == c], n) for c in range(n_columns)]
    head = len(str(n - 1)) + 2
    blocks: list[list[list[str]]] = [[]]
    used = head
    for column in columns:
        size = len(column[0]) + 1
        if blocks[-1] and used + size > width - 6:
            blocks.append([])
            used = head
        blocks[-1].append(column)
        used += size
    pages = []
    for number, block in enumerate(blocks):
        last = number == len(blocks) - 1
        lines = [
            f"{wire:>{head - 2}}: ─" + "─".join(column[wire] for column in block) + (ends[wire] if last else "─ ···")
            for wire in range(n)
        ]
        pages.append("\n".join(lines))
    return "\n\n".join(pages) + "\n" + f"measured: {', '.join(circuit.observables)}\n"


def _ends(circuit: Circuit) -> list[str]:
    measured = {wire for observable in circuit.paulis for _, wire in observable.paulis}
    return ["─┤ ⟨⟩" if wire in measured else "─┤" for wire in range(circuit.n_qubits)]


def _column(gates: Sequence[Symbol], n_qubits: int) -> list[str]:
    cells = ["─"] * n_qubits
    for symbol in gates:
        top, bottom = min(symbol.words), max(symbol.words)
        for wire in range(top, bottom + 1):
            word = symbol.words.get(wire, "")
            corner = "" if top == bottom else "╭" if wire == top else "╰" if wire == bottom else "├" if word else "│"
            cells[wire] = corner + word
    size = max(map(len, cells))
    return [cell.ljust(size, "─") for cell in cells]


def figure(circuit: Circuit, weights: Tensor | None = None, *, columns: int = 14) -> Figure:
    """Return the circuit drawn as a figure.

    Args:
        circuit: what to draw.
        weights: of any shape, to write their values instead of their names.
        columns: gates beside one another; a longer circuit goes on below.
    """
    drawn, n = symbols(circuit, weights), circuit.n_qubits
    n_columns = max((symbol.column for symbol in drawn), default=0) + 1
    n_rows = math.ceil(n_columns / columns)
    shown = min(columns, n_columns)
    made = Figure(figsize=(0.95 * shown + 1.6, (0.65 * n + 0.5) * n_rows + 0.3), layout="constrained")
    FigureCanvasAgg(made)
    for row in range(n_rows):
        ax = made.add_subplot(n_rows, 1, row + 1)
        ax.set(xlim=(-1.2, shown + 0.4), ylim=(n - 0.4, -0.6))
        ax.axis("off")
        here = range(row * columns, (row + 1) * columns)
        last = min(n_columns - row * columns, shown)
        for wire in range(n):
            ax.plot([-0.7, last - 0.2], [wire, wire], color="black", linewidth=0.8, zorder=1)
            ax.text(-0.8, wire, f"q{wire}", ha="right", va="center", fontsize=9)
        for symbol in (s for s in drawn if s.column in here):
            x = symbol.column - here.start
            if len(symbol.words) > 1:
                ax.plot([x, x], [min(symbol.words), max(symbol.words)], color="black", linewidth=0.8, zorder=1)
            for wire, word in symbol.words.items():
                if word == "●":
                    ax.plot([x], [wire], "o", color="black", markersize=5, zorder=3)
                    continue
                name, _, angles = word.partition("(")
                shown_word = f"{name}\n{angles[:-1].replace(',', chr(10))}" if angles else name
                box = {"boxstyle": "round,pad=0.25", "facecolor": "#DCEBF7", "edgecolor": "#0072B2", "linewidth": 0.8}
                size = 7 if shown_word.count("\n") < 2 else 5.5
                ax.text(x, wire, shown_word, ha="center", va="center", fontsize=size, bbox=box, zorder=2)
        ax.set_title(f"{circuit.name}, measured: {', '.join(circuit.observables)}" if row == 0 else "", fontsize=9)
    return made


def save(figure: Figure, path: Path) -> None:
    """Write a figure whole or not at all, the same bytes every time; the file's ending says how: svg, png or pdf.

    Raises:
        ValueError: the ending is another one.
        OSError: the file cannot be written there.
    """
    kind = path.suffix.removeprefix(".").lower()
    if kind not in ("svg", "png", "pdf"):
        raise ValueError(f"a figure is written as .svg, .png or .pdf, not as {path.name}")
    sink = io.BytesIO()
    metadata = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[kind]
    with mpl.rc_context({"svg.hashsalt": "hcqsfl", "savefig.dpi": 150}):
        figure.savefig(sink, format=kind, metadata=metadata)
    try:
        write_whole(path, sink.getvalue())
    except OSError as error:
        raise OSError(f"the figure cannot be written to {path}: {error.strerror or error}") from None
