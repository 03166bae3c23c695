import importlib.util
import math
import re
import sys
import types
from importlib.machinery import ModuleSpec

import numpy as np
import pennylane as qml
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hcqsfl.quantum import export
from hcqsfl.quantum.backend.lowering import normalised
from hcqsfl.quantum.circuit import Circuit
from hcqsfl.quantum.circuits import CIRCUITS, make
from hcqsfl.quantum.layer import QuantumLayer
from hcqsfl.quantum.states import states

OPERATIONS = {
    "h": qml.Hadamard, "rx": qml.RX, "ry": qml.RY, "rz": qml.RZ, "cx": qml.CNOT, "cz": qml.CZ, "rzz": qml.IsingZZ,
    "crx": qml.CRX, "crz": qml.CRZ, "sdg": lambda wires: qml.adjoint(qml.S(wires)),
}  # fmt: skip


def layer_of(name: str, **options: object) -> QuantumLayer:
    torch.manual_seed(0)
    return QuantumLayer(make(name, 2 if name == "hqsl" else 3, 2, **options), dtype=torch.complex128, backend="fused")


def rows_of(layer: QuantumLayer, n: int = 3) -> torch.Tensor:
    return torch.randn(n, layer.circuit.n_inputs, dtype=torch.float64)


def run(program: str, n_qubits: int, inputs: torch.Tensor | None = None) -> np.ndarray:
    """Read a program line by line and run it in PennyLane: the state before the measurement."""
    names = {f"x{i}": float(v) for i, v in enumerate(inputs)} if inputs is not None else {}

    @qml.qnode(qml.device("default.qubit", wires=n_qubits))
    def state():
        for line in program.splitlines():
            found = re.fullmatch(r"(\w+)(?:\((.*)\))? (q\[\d+\](?:, q\[\d+\])*);", line)
            if found and found[1] in OPERATIONS:
                angles = [eval(text, {"__builtins__": {}}, names) for text in found[2].split(", ")] if found[2] else []
                OPERATIONS[found[1]](*angles, wires=[int(w) for w in re.findall(r"\d+", found[3])])
        return qml.state()

    return state()


def same_up_to_phase(a: np.ndarray, b: np.ndarray) -> bool:
    return abs(abs(np.vdot(a, b)) - 1) < 1e-12


@pytest.mark.parametrize("name", sorted(CIRCUITS))
def test_a_program_run_elsewhere_gives_the_trained_layers_state(name: str) -> None:
    layer = layer_of(name)
    row = rows_of(layer)[0]
    program = export.openqasm(layer.circuit, layer.weights, row)
    mine = states(layer.circuit, row[None], layer.weights.detach())[0].numpy()
    assert same_up_to_phase(run(program, layer.circuit.n_qubits), mine)
    assert program.startswith("OPENQASM 3.0;\n")
    assert program.endswith("c = measure q;\n")


@pytest.mark.parametrize("name", sorted(set(CIRCUITS) - {"amplitude"}))
def test_free_inputs_can_be_bound_later(name: str) -> None:
    layer = layer_of(name)
    row = rows_of(layer)[0]
    program = export.openqasm(layer.circuit, layer.weights, basis="")
    assert all(f"input float[64] x{i};" in program for i in range(layer.circuit.n_inputs))
    assert "measure" not in program
    mine = states(layer.circuit, row[None], layer.weights.detach())[0].numpy()
    assert same_up_to_phase(run(program, layer.circuit.n_qubits, row), mine)


def test_amplitudes_have_no_free_inputs() -> None:
    layer = layer_of("amplitude")
    with pytest.raises(ValueError, match="give the inputs of one sample"):
        export.openqasm(layer.circuit, layer.weights)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=8, max_size=8).filter(lambda v: np.linalg.norm(v) > 1e-3))
def test_any_real_amplitudes_are_prepared_sign_included(amplitudes: list[float]) -> None:
    goal = np.array(amplitudes) / np.linalg.norm(amplitudes)

    @qml.qnode(qml.device("default.qubit", wires=3))
    def state():
        for name, wires, angles in export.prepare(goal):
            OPERATIONS[name](*(angle.scale for angle in angles), wires=wires)
        return qml.state()

    np.testing.assert_allclose(state(), goal, atol=1e-10)


def test_bases_are_few_and_fit_every_observable() -> None:
    circuit = make("strongly_entangling", 3, 1, observables=("X0 Y2", "Z1", "Z0", "Y2", "Z0 X1"))
    assert export.bases(circuit) == ("XZY", "ZXZ")
    with pytest.raises(ValueError, match="need 2 programs, one for each of the bases XZY, ZXZ"):
        export.openqasm(circuit, torch.zeros(1, 3, 3), torch.zeros(3))
    with pytest.raises(ValueError, match="letters X, Y or Z"):
        export.openqasm(circuit, torch.zeros(1, 3, 3), torch.zeros(3), basis="XQZ")


def test_a_rotated_basis_turns_probabilities_into_the_observables() -> None:
    layer = layer_of("strongly_entangling", observables=("X0 Y2", "Z1", "Y1 X2"))
    row = rows_of(layer)[0]
    settings_ = export.bases(layer.circuit)
    counts = []
    for basis in settings_:
        chances = np.abs(run(export.openqasm(layer.circuit, layer.weights, row, basis=basis), 3)) ** 2
        counts.append({f"{k:03b}"[::-1]: chance for k, chance in enumerate(chances)})
    means = export.means(layer.circuit, settings_, counts)
    np.testing.assert_allclose(means, layer(row[None])[0].detach().numpy(), atol=1e-10)


def test_a_circuits_name_cannot_write_into_the_program() -> None:
    good = make("basic_entangler", 1, 1)
    evil = Circuit("a\nreset q;", 1, 1, 1, good.weight_shape, good.gates, good.observables)
    assert "\nreset" not in export.openqasm(evil, torch.zeros(good.weight_shape), torch.zeros(1))


def test_what_cannot_be_written_is_refused(tmp_path) -> None:
    layer = layer_of("iqp")
    with pytest.raises(ValueError, match="1 of 3 inputs are NaN"):
        export.openqasm(layer.circuit, layer.weights, torch.tensor([0, math.nan, 0]))
    with pytest.raises(ValueError, match="has 18 weights, not 4"):
        export.openqasm(layer.circuit, torch.zeros(4), torch.zeros(3))
    with pytest.raises(OSError, match=r"cannot be written to .*absent.*x\.qasm: No such file"):
        export.save_openqasm(tmp_path / "absent" / "x.qasm", "OPENQASM 3.0;\n")
    with pytest.raises(OSError, match=r"cannot be written to .*: Is a directory"):
        export.save_openqasm(tmp_path, "OPENQASM 3.0;\n")
    export.save_openqasm(tmp_path / "x.qasm", "OPENQASM 3.0;\n")
    assert (tmp_path / "x.qasm").read_text() == "OPENQASM 3.0;\n"


@pytest.mark.parametrize("device", ["default.qubit", "lightning.qubit", "default.mixed"])
@pytest.mark.parametrize("name", ["strongly_entangling", "amplitude", "iqp"])
def test_a_qnode_on_any_device_is_the_layer(name: str, device: str) -> None:
    layer = layer_of(name)
    rows = rows_of(layer)
    # what a device computes outside torch, PennyLane hands back in single precision
    tolerance = 1e-10 if device == "default.qubit" else 1e-6
    values = torch.stack(list(export.qnode(layer, device)(rows)), -1)
    assert (values - layer(rows)).abs().max() < tolerance
    one = torch.stack(list(export.qnode(layer, device)(rows[0])), -1)
    assert (one - layer(rows)[0]).abs().max() < tolerance


def test_a_qnode_with_shots_comes_near() -> None:
    layer = layer_of("strongly_entangling")
    rows = rows_of(layer)
    values = torch.stack(list(export.qnode(layer, shots=4000, seed=1)(rows)), -1)
    assert 0 < (values - layer(rows)).abs().max() < 6 / math.sqrt(4000)
    with pytest.raises(ValueError, match="0 shots were asked for"):
        export.qnode(layer, shots=0)


def test_the_exported_weights_do_not_follow_later_training() -> None:
    layer = layer_of("basic_entangler")
    node, rows = export.qnode(layer), rows_of(layer)
    before = layer(rows).detach()
    with torch.no_grad():
        layer.weights.add_(1)
    assert (torch.stack(list(node(rows)), -1) - before).abs().max() < 1e-10
    assert normalised(layer.circuit, rows).shape == (3, 8)


aer = pytest.mark.skipif(
    importlib.util.find_spec("qiskit_aer") is None, reason="qiskit-aer is not installed (the extra [qiskit])"
)


@aer
@pytest.mark.parametrize("name", sorted(CIRCUITS))
def test_aer_gives_the_layers_values(name: str) -> None:
    layer = layer_of(name)
    rows = rows_of(layer)
    assert (export.run_on_qiskit(layer, rows) - layer(rows)).abs().max() < 1e-10


@aer
def test_aer_with_shots_comes_near_in_every_basis() -> None:
    layer = layer_of("strongly_entangling", observables=("X0 Y2", "Z1", "Y1 X2"))
    rows = rows_of(layer)
    values = export.run_on_qiskit(layer, rows, shots=4000, seed=1)
    assert 0 < (values - layer(rows)).abs().max() < 5 / math.sqrt(4000)
    assert torch.equal(values, export.run_on_qiskit(layer, rows, shots=4000, seed=1))


@pytest.mark.skipif(
    importlib.util.find_spec("qiskit_qasm3_import") is None, reason="qiskit-qasm3-import is not installed"
)
@pytest.mark.parametrize("name", sorted(CIRCUITS))
def test_qiskit_reads_the_program_as_the_circuit(name: str) -> None:
    from qiskit import qasm3
    from qiskit.quantum_info import Statevector

    layer = layer_of(name)
    row = rows_of(layer)[0]
    read = qasm3.loads(export.openqasm(layer.circuit, layer.weights, row))
    assert read.num_clbits == layer.circuit.n_qubits
    read.remove_final_measurements()
    theirs = Statevector(read.reverse_bits()).data
    assert same_up_to_phase(theirs, states(layer.circuit, row[None], layer.weights.detach())[0].numpy())


@pytest.mark.skipif(importlib.util.find_spec("qiskit") is not None, reason="Qiskit is installed")
def test_absent_qiskit_is_said_in_one_sentence() -> None:
    layer = layer_of("basic_entangler")
    with pytest.raises(ValueError, match=r"qiskit is not installed; pip install 'hcqsfl\[qiskit\]'"):
        export.run_on_qiskit(layer, rows_of(layer))


def test_impossible_runs_on_hardware_are_refused() -> None:
    layer = layer_of("basic_entangler")
    with pytest.raises(ValueError, match="-5 shots"):
        export.run_on_qiskit(layer, rows_of(layer), shots=-5)
    with pytest.raises(ValueError, match="say in how many shots"):
        export.run_on_qiskit(layer, rows_of(layer), backend=object())


def test_an_ibm_machine_without_its_package_or_credentials_is_refused_in_one_sentence(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "qiskit_ibm_runtime", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"qiskit_ibm_runtime is not installed; pip install qiskit-ibm-runtime"):
        export.ibm("ibm_torino")

    class Service:
        def __init__(self) -> None:
            raise RuntimeError("Unable to find account.\nSee the documentation.")

    runtime = types.ModuleType("qiskit_ibm_runtime")
    runtime.QiskitRuntimeService, runtime.SamplerV2 = Service, object
    monkeypatch.setitem(sys.modules, "qiskit_ibm_runtime", runtime)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: ModuleSpec(name, None))
    with pytest.raises(
        ValueError, match=r"'ibm_torino' cannot be reached: Unable to find account\.; save your"
    ) as told:
        export.ibm("ibm_torino")
    assert "\n" not in str(told.value)
