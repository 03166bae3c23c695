import pytest
import torch

from hcqsfl.quantum import draw
from hcqsfl.quantum.circuit import Angle, constant
from hcqsfl.quantum.circuits import CIRCUITS, make

ENTANGLER = """\
0: ─RY(x0)─Rot(w0,w1,w2)─╭●────╭X─┤ ⟨⟩
1: ─RY(x1)─Rot(w3,w4,w5)─╰X─╭●─│──┤ ⟨⟩
2: ─RY(x2)─Rot(w6,w7,w8)────╰X─╰●─┤
measured: Z0, Y1
"""


def test_a_circuit_is_drawn_as_its_docstring_shows_it() -> None:
    assert draw.text(make("strongly_entangling", 3, 1, observables=("Z0", "Y1"))) == ENTANGLER


@pytest.mark.parametrize("name", sorted(CIRCUITS))
def test_every_gate_is_drawn_and_lines_are_aligned(name: str) -> None:
    circuit = make(name, 2 if name == "hqsl" else 4, 3)
    *lines, measured = draw.text(circuit, width=10_000).splitlines()
    assert len({line.index("┤") for line in lines}) == 1
    assert measured == f"measured: {', '.join(circuit.observables)}"
    drawn = draw.symbols(circuit)
    assert len(drawn) == len(circuit.gates) + (circuit.start == "amplitudes")
    taken = [(s.column, wire) for s in drawn for wire in range(min(s.words), max(s.words) + 1)]
    assert len(set(taken)) == len(taken)


def test_a_long_circuit_goes_on_below_within_the_width() -> None:
    page = draw.text(make("strongly_entangling", 4, 6), width=80)
    assert page.count("0: ") > 2
    assert max(map(len, page.splitlines())) <= 80


@pytest.mark.parametrize(
    ("angle", "label"),
    [
        (Angle(inputs=(0, 1), scale=2.0, shift=torch.pi), "2(x0-π)(x1-π)"),
        (Angle(inputs=(0, 2)), "x0·x2"),
        (Angle(inputs=(3,), scale=-1.0), "-x3"),
        (Angle(inputs=(1,), weight=4), "w4·x1"),
        (Angle(weight=4, scale=0.5), "0.5·w4"),
        (constant(-torch.pi / 2), "-π/2"),
        (constant(0.25), "0.25"),
    ],
)
def test_angles_are_written_as_one_would(angle: Angle, label: str) -> None:
    assert draw.label(angle) == label


def test_trained_weights_are_written_as_numbers() -> None:
    page = draw.text(make("basic_entangler", 2, 1), torch.tensor([[0.5, -1.25]]))
    assert "RX(0.5)" in page
    assert "RX(-1.25)" in page


def test_the_figure_shows_every_gate_and_goes_on_below() -> None:
    circuit = make("hardware_efficient", 3, 5)
    figure = draw.figure(circuit, columns=8)
    written = [text.get_text() for ax in figure.axes for text in ax.texts]
    assert len(figure.axes) > 1
    assert sum(text.startswith("RY") for text in written) == 18


@pytest.mark.parametrize("kind", ["svg", "png", "pdf"])
def test_a_figure_is_written_the_same_every_time(kind: str, tmp_path) -> None:
    for name in ("a", "b"):
        draw.save(draw.figure(make("iqp", 2, 1)), tmp_path / f"{name}.{kind}")
    assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()


def test_a_figure_that_cannot_be_written_is_one_clear_error(tmp_path) -> None:
    figure = draw.figure(make("iqp", 2, 1))
    with pytest.raises(ValueError, match=r"\.svg, \.png or \.pdf, not as a\.gif"):
        draw.save(figure, tmp_path / "a.gif")
    with pytest.raises(OSError, match=r"cannot be written to .*absent.*: No such file"):
        draw.save(figure, tmp_path / "absent" / "a.svg")
