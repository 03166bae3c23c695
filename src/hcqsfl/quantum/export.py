"""A trained circuit for other people's machines: OpenQASM 3, PennyLane's devices, Qiskit's simulators and hardware.

Amplitudes are prepared by rotations and CNOTs. What is written measures every qubit once, in the basis that the
circuit's observables need; a circuit whose observables need several bases is several programs.

Source:
    Cross et al. (2022), OpenQASM 3: a broader and deeper quantum assembly language, ACM Trans. Quantum Comput. 3, 12;
    Möttönen et al. (2005), Transformation of quantum states using uniformly controlled rotations, for amplitudes.
"""

import importlib.util
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hcqsfl.evaluation.files import write_whole
from hcqsfl.quantum.backend.lowering import normalised
from hcqsfl.quantum.circuit import Angle, Circuit, constant
from hcqsfl.quantum.layer import QuantumLayer
from hcqsfl.quantum.states import check_numbers

Step = tuple[str, tuple[int, ...], tuple[Angle, ...]]
"""A gate's name in OpenQASM's standard library (or ``rzz``), its wires, its angles."""

NAMES = {
    "H": "h",
    "RX": "rx",
    "RY": "ry",
    "RZ": "rz",
    "CNOT": "cx",
    "CZ": "cz",
    "RZZ": "rzz",
    "CRX": "crx",
    "CRZ": "crz",
}


def bases(circuit: Circuit) -> tuple[str, ...]:
    """Return the bases to measure in, one letter X, Y or Z a qubit, so few that each observable fits one of them."""
    found: list[dict[int, str]] = []
    for observable in circuit.paulis:
        letters = {wire: letter for letter, wire in observable.paulis}
        for basis in found:
            if all(basis.get(wire, letter) == letter for wire, letter in letters.items()):
                basis.update(letters)
                break
        else:
            found.append(letters)
    return tuple("".join(basis.get(wire, "Z") for wire in range(circuit.n_qubits)) for basis in found)


def openqasm(circuit: Circuit, weights: Tensor, inputs: Tensor | None = None, *, basis: str | None = None) -> str:
    """Return a circuit with trained weights as an OpenQASM 3 program.

    Args:
        circuit: what to write.
        weights: of the circuit's shape, or flat.
        inputs: one sample's features ``(n_inputs,)``, written into the angles; if None they stay free, as the program's
            ``input float[64] x0, x1, ...``.
        basis: one of ``bases(circuit)``, ``""`` to measure nothing, or None for the circuit's only one.

    Raises:
        ValueError: a number is not finite or missing, the basis is none or is needed, or free inputs were asked for
            where the inputs are amplitudes.
    """
    weights, inputs = _checked(circuit, weights, inputs)
    chosen = _basis(circuit, basis)
    if inputs is None and circuit.start == "amplitudes":
        raise ValueError(
            f"the inputs of circuit {circuit.name} are amplitudes, which no angle of a fixed program can read; "
            "give the inputs of one sample"
        )
    name = re.sub(r"[^\w .-]", "_", circuit.name)
    body = [
        f"{step}{_arguments(angles, weights, inputs)} {', '.join(f'q[{wire}]' for wire in wires)};"
        for step, wires, angles in _steps(circuit, inputs, chosen)
    ]
    head = [
        "OPENQASM 3.0;",
        'include "stdgates.inc";',
        f"// circuit {name}: {circuit.n_qubits} qubits, {circuit.n_layers} layers; expectation values of "
        f"{', '.join(circuit.observables)}",
    ]
    if any(step == "rzz" for step, _, _ in _steps(circuit, inputs, chosen)):
        head.append("gate rzz(theta) a, b { cx a, b; rz(theta) b; cx a, b; }")
    if inputs is None:
        head += [f"input float[64] x{i};" for i in range(circuit.n_inputs)]
    head.append(f"qubit[{circuit.n_qubits}] q;")
    if not chosen:
        return "\n".join([*head, *body, ""])
    return "\n".join([*head, f"bit[{circuit.n_qubits}] c;", *body, "c = measure q;", ""])


def save_openqasm(path: Path, program: str) -> None:
    """Write a program to a file, whole or not at all.

    Raises:
        OSError: the file cannot be written there; what was there is untouched.
    """
    try:
        write_whole(Path(path), program.encode())
    except OSError as error:
        raise OSError(f"the OpenQASM program cannot be written to {path}: {error.strerror or error}") from None


def qnode(
    layer: QuantumLayer,
    device: str = "default.qubit",
    *,
    shots: int | None = None,
    diff_method: str = "best",
    **options: Any,
) -> Any:
    """Return a trained layer as a PennyLane QNode of its inputs on any device, the weights written in.

    Args:
        layer: whose circuit and weights.
        device: PennyLane's name of the device.
        shots: samples of each measurement; exact values if None.
        diff_method: PennyLane's name of the way to differentiate to the inputs.
        options: what the device takes besides its wires.

    Returns:
        A QNode of ``(n_inputs,)`` or ``(b, n_inputs)`` that returns one value an observable.

    Raises:
        ValueError: ``shots`` is below 1.
    """
    import pennylane as qml

    from hcqsfl.quantum.backend import pennylane as reference

    check_shots(shots)
    inner = reference.qnode(layer.circuit, device, diff_method, **options)
    weights = layer.weights.detach().reshape(-1).clone()

    def run(inputs: Tensor) -> Any:
        return inner.func(inputs, weights)

    node = qml.QNode(run, inner.device, interface="torch", diff_method=diff_method)
    if shots is not None:
        node = qml.set_shots(node, shots)
    # only backprop differentiates a batch at once
    return node if device == "default.qubit" and shots is None else qml.transforms.broadcast_expand(node)


def check_shots(shots: int | None) -> None:
    """Refuse a number of shots that is none.

    Raises:
        ValueError: it is below 1.
    """
    if shots is not None and shots < 1:
        raise ValueError(f"{shots} shots were asked for; at least 1 is needed, or none at all for exact values")


def to_qiskit(circuit: Circuit, weights: Tensor, inputs: Tensor, *, basis: str | None = "") -> Any:
    """Return one sample's circuit as Qiskit's ``QuantumCircuit``; our qubit ``i`` is Qiskit's ``i``.

    Args:
        circuit, weights: as ``openqasm``.
        inputs: ``(n_inputs,)``.
        basis: as ``openqasm``; by default nothing is measured.

    Raises:
        ValueError: Qiskit is not installed, or as ``openqasm``.
    """
    _need("qiskit")
    from qiskit import QuantumCircuit

    weights, bound = _checked(circuit, weights, inputs)
    assert bound is not None
    chosen = _basis(circuit, basis)
    made = QuantumCircuit(circuit.n_qubits, circuit.n_qubits if chosen else 0)
    for step, wires, angles in _steps(circuit, bound, chosen):
        getattr(made, step)(*(float(a.value(bound, weights)) for a in angles), *wires)
    if chosen:
        made.measure(range(circuit.n_qubits), range(circuit.n_qubits))
    return made


def run_on_qiskit(
    layer: QuantumLayer,
    inputs: Tensor,
    *,
    shots: int | None = None,
    backend: Any = None,
    sampler: Any = None,
    seed: int = 0,
) -> Tensor:
    """Return a trained layer's expectation values ``(b, n_observables)`` as Qiskit finds them.

    Args:
        layer: whose circuit and weights.
        inputs: ``(b, n_inputs)``.
        shots: samples of each measurement; None for exact values by Aer's state vectors.
        backend: what to compile for and run on: any Qiskit ``BackendV2``; Aer's simulator if None. For IBM's hardware
            ``QiskitRuntimeService().backend(...)``, which reads the credentials that were saved with it.
        sampler: a ``SamplerV2`` to run by, such as ``qiskit_ibm_runtime.SamplerV2(backend)``; Qiskit's
            ``BackendSamplerV2`` if None.
        seed: of Aer's sampling.

    Raises:
        ValueError: Qiskit or Aer is not installed, ``shots`` is below 1, or exact values are asked of hardware.
    """
    check_shots(shots)
    check_numbers(layer.circuit, inputs, layer.weights)
    if shots is None and (backend is not None or sampler is not None):
        raise ValueError("a backend or sampler measures; say in how many shots, or name neither for exact values")
    circuit, weights = layer.circuit, layer.weights.detach()
    rows = inputs.detach().to(torch.float64)
    if shots is None:
        return torch.stack([_exact(circuit, weights, row) for row in rows]).to(inputs.dtype)
    _need("qiskit")
    if backend is None:
        _need("qiskit_aer")
        from qiskit_aer import AerSimulator

        backend = AerSimulator(seed_simulator=seed)
    from qiskit import transpile
    from qiskit.primitives import BackendSamplerV2

    sampler = sampler or BackendSamplerV2(backend=backend, options={"seed_simulator": seed})
    settings = bases(circuit)
    programs = [to_qiskit(circuit, weights, row, basis=basis) for row in rows for basis in settings]
    done = sampler.run(transpile(programs, backend, seed_transpiler=seed), shots=shots).result()
    values = torch.empty(len(rows), circuit.n_observables, dtype=inputs.dtype)
    for i in range(len(rows)):
        counts = [done[i * len(settings) + k].data.c.get_counts() for k in range(len(settings))]
        values[i] = torch.tensor(means(circuit, settings, counts), dtype=inputs.dtype)
    return values


def means(circuit: Circuit, settings: Sequence[str], counts: Sequence[dict[str, int]]) -> list[float]:
    """Return the mean of every observable from counted bit strings.

    Args:
        circuit: what was run.
        settings: the bases measured in.
        counts: for each basis how often each bit string came, written as Qiskit does: qubit 0 is the last letter.
    """
    found = []
    for observable in circuit.paulis:
        place = next(
            k for k, basis in enumerate(settings) if all(basis[w] == letter for letter, w in observable.paulis)
        )
        wires = [wire for _, wire in observable.paulis]
        signed = [n * (-1) ** sum(bits[-1 - wire] == "1" for wire in wires) for bits, n in counts[place].items()]
        found.append(sum(signed) / sum(counts[place].values()))
    return found


def _exact(circuit: Circuit, weights: Tensor, row: Tensor) -> Tensor:
    _need("qiskit")
    _need("qiskit_aer")
    import qiskit_aer.library  # noqa: F401, it gives circuits save_expectation_value
    from qiskit import transpile
    from qiskit.quantum_info import Pauli
    from qiskit_aer import AerSimulator

    made = to_qiskit(circuit, weights, row)
    for k, observable in enumerate(circuit.paulis):
        letters = "".join(letter for letter, _ in observable.paulis)
        # Qiskit writes the last qubit first
        made.save_expectation_value(Pauli(letters[::-1]), [wire for _, wire in observable.paulis], label=str(k))
    simulator = AerSimulator(method="statevector")
    data = simulator.run(transpile(made, simulator, optimization_level=0)).result().data()
    return torch.tensor([data[str(k)] for k in range(circuit.n_observables)], dtype=torch.float64)


def ibm(name: str) -> dict[str, Any]:
    """Return one of IBM's machines as ``run_on_qiskit`` takes it: its ``backend`` and a ``sampler`` on it.

    Raises:
        ValueError: ``qiskit-ibm-runtime`` is not installed, no credentials were saved with it, or they reach no machine
            of this name.
    """
    _need("qiskit_ibm_runtime", "qiskit-ibm-runtime")
    from qiskit_ibm_runtime import QiskitRuntimeService, SamplerV2

    try:
        backend = QiskitRuntimeService().backend(name)
    except Exception as error:  # each kind of refusal is a kind of exception of that package's own
        first = str(error).strip().split("\n")[0]
        raise ValueError(
            f"IBM's machine {name!r} cannot be reached: {first}; save your credentials once by "
            "qiskit_ibm_runtime.QiskitRuntimeService.save_account(token=...), or take 'aer' to simulate"
        ) from None
    return {"backend": backend, "sampler": SamplerV2(mode=backend)}


def _need(package: str, brought_by: str = "'hcqsfl[qiskit]'") -> None:
    if importlib.util.find_spec(package) is None:
        raise ValueError(f"the package {package} is not installed; pip install {brought_by} brings it")


def _checked(circuit: Circuit, weights: Tensor, inputs: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Return flat weights and inputs in double precision."""
    rows = weights.new_zeros(1, circuit.n_inputs) if inputs is None else inputs.reshape(1, -1)
    check_numbers(circuit, rows, weights)
    real = None if inputs is None else inputs.detach().cpu().to(torch.float64).reshape(-1)
    return weights.detach().cpu().to(torch.float64).reshape(-1), real


def _basis(circuit: Circuit, basis: str | None) -> str:
    settings = bases(circuit)
    if basis is None:
        if len(settings) > 1:
            raise ValueError(
                f"the observables of circuit {circuit.name} need {len(settings)} programs, one for each of the bases "
                f"{', '.join(settings)}; name one"
            )
        return settings[0]
    if basis and (len(basis) != circuit.n_qubits or set(basis) - set("XYZ")):
        raise ValueError(f"a basis of {circuit.n_qubits} qubits is as many letters X, Y or Z, not {basis!r}")
    return basis


def _steps(circuit: Circuit, inputs: Tensor | None, basis: str) -> Iterator[Step]:
    if circuit.start == "amplitudes":
        assert inputs is not None
        yield from prepare(normalised(circuit, inputs).numpy())
    for gate in circuit.gates:
        if gate.name == "Rot":
            for name, angle in zip(("rz", "ry", "rz"), gate.angles, strict=True):
                yield name, gate.wires, (angle,)
        else:
            yield NAMES[gate.name], gate.wires, gate.angles
    for wire, letter in enumerate(basis):
        if letter == "Y":
            yield "sdg", (wire,), ()
        if letter in "XY":
            yield "h", (wire,), ()


def prepare(amplitudes: np.ndarray) -> Iterator[Step]:
    """Yield rotations and CNOTs that take all zeros to real amplitudes ``(2**n,)`` of length 1."""
    n_qubits = len(amplitudes).bit_length() - 1
    for wire in range(n_qubits):
        halves = amplitudes.reshape(2**wire, 2, -1)
        # the last rotation takes the signs; the ones before it only share out the weight
        parts = halves[:, :, 0] if wire == n_qubits - 1 else np.linalg.norm(halves, axis=2)
        angles = 2 * np.arctan2(parts[:, 1], parts[:, 0])
        yield from _chosen_rotation(angles, tuple(range(wire)), wire)


def _chosen_rotation(angles: np.ndarray, controls: tuple[int, ...], wire: int) -> Iterator[Step]:
    """Yield RY by ``angles[k]`` where the controls read ``k``."""
    if not controls:
        if angles[0]:
            yield "ry", (wire,), (constant(float(angles[0])),)
        return
    if not angles.any():
        return
    zero, one = np.split(angles, 2)
    yield from _chosen_rotation((zero + one) / 2, controls[1:], wire)
    if not np.array_equal(zero, one):
        yield "cx", (controls[0], wire), ()
        yield from _chosen_rotation((zero - one) / 2, controls[1:], wire)
        yield "cx", (controls[0], wire), ()


def _arguments(angles: Sequence[Angle], weights: Tensor, inputs: Tensor | None) -> str:
    if not angles:
        return ""
    if inputs is not None:
        return f"({', '.join(repr(float(angle.value(inputs, weights))) for angle in angles)})"
    return f"({', '.join(_expression(angle, weights) for angle in angles)})"


def _expression(angle: Angle, weights: Tensor) -> str:
    factor = angle.scale * (1.0 if angle.weight is None else float(weights[angle.weight]))
    if not math.isfinite(factor):
        raise ValueError(f"an angle's factor is {factor}")
    inputs = [f"x{i}" if not angle.shift else f"(x{i} - {angle.shift!r})" for i in angle.inputs]
    return " * ".join([repr(factor), *inputs] if factor != 1 or not inputs else inputs)
