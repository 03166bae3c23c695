import csv
import math

import numpy as np
import pytest
import torch
from scipy.stats import unitary_group

from hcqsfl.quantum import diagnostics
from hcqsfl.quantum.circuit import Circuit, Gate, weight
from hcqsfl.quantum.circuits import CIRCUITS, make
from hcqsfl.recipes.circuit_diagnostics import COLUMNS, diagnose_circuits


def circuit_of(*gates: Gate, n_qubits: int, n_weights: int, observables: tuple[str, ...] = ("Z0",)) -> Circuit:
    return Circuit("made", n_qubits, 1, 1, (n_weights,), gates, observables)


def turned(n_qubits: int, axes: str = "Y") -> Circuit:
    """One rotation a qubit and axis, nothing entangled."""
    places = [(axis, wire) for wire in range(n_qubits) for axis in axes]
    gates = [Gate(f"R{axis}", (wire,), (weight(i),)) for i, (axis, wire) in enumerate(places)]
    return circuit_of(*gates, n_qubits=n_qubits, n_weights=len(gates))


def haar_states(n_qubits: int, n: int) -> torch.Tensor:
    return torch.tensor(unitary_group.rvs(2**n_qubits, size=n, random_state=0)[:, :, 0])


def test_meyer_wallach_is_0_for_products_1_for_ghz_and_8_9ths_for_w() -> None:
    ghz, w = torch.zeros(1, 8, dtype=torch.complex128), torch.zeros(1, 8, dtype=torch.complex128)
    ghz[0, [0, 7]] = 1 / math.sqrt(2)
    w[0, [1, 2, 4]] = 1 / math.sqrt(3)
    product = diagnostics.random_states(turned(3, "YZ"), 5, 0)
    assert diagnostics.meyer_wallach(product).abs().max() < 1e-12
    assert abs(diagnostics.meyer_wallach(ghz).item() - 1) < 1e-12
    # each qubit of W is 0 with 2/3 and 1 with 1/3, so its purity is 5/9
    assert abs(diagnostics.meyer_wallach(w).item() - 8 / 9) < 1e-12


def test_haar_random_states_have_their_known_entanglement_and_no_divergence() -> None:
    states = haar_states(3, 4000)
    assert abs(diagnostics.meyer_wallach(states).mean().item() - 6 / 9) < 0.01  # (N - 2) / (N + 1)
    fidelities = (states[:2000].conj() * states[2000:]).sum(1).abs().square()
    assert 0 <= diagnostics.haar_divergence(fidelities, 3) < 75 / 4000


def test_an_idle_circuit_has_the_largest_divergence_there_is() -> None:
    """All fidelities are 1, in the last of 75 bins, whose Haar share is 75^-(N - 1)."""
    assert abs(diagnostics.haar_divergence(torch.ones(10), 4) - 15 * math.log(75)) < 1e-9
    idle = make("iqp", 2, 0)
    fixed = Circuit("idle", 2, 0, 1, (0,), tuple(g for g in idle.gates if g.name == "H"), ("Z0",))
    assert abs(diagnostics.expressibility(fixed, n_pairs=50) - 3 * math.log(75)) < 1e-9


def test_expressibility_of_one_qubit_orders_circuits_as_sim_et_al_do() -> None:
    """A rotation about one axis reaches a circle; about three, nearly the sphere."""
    circle = diagnostics.expressibility(turned(1, "Y"), n_pairs=3000)
    sphere = diagnostics.expressibility(turned(1, "ZXZ"), n_pairs=3000)
    # of a circle F = cos^2(d / 2) with d uniform: density 1 / (pi sqrt(F (1 - F))) against 1
    edges = np.linspace(0, 1, 76)
    share = np.diff(2 / math.pi * np.arcsin(np.sqrt(edges)))
    assert abs(circle - (share * np.log(share * 75)).sum()) < 0.05
    assert sphere < circle / 2


def test_entangling_capability_is_0_without_entanglers_and_near_haars_in_depth() -> None:
    assert abs(diagnostics.entangling_capability(turned(3), n_samples=20)) < 1e-12
    deep = diagnostics.entangling_capability(make("strongly_entangling", 3, 6), n_samples=600)
    assert abs(deep - 6 / 9) < 0.02


def test_gradient_variance_is_the_sum_on_paper() -> None:
    """<Z0> = cos w0 in a product of rotations: its derivative -sin w0 has variance 1/2, the other weights none."""
    found = diagnostics.gradient_variance(turned(4), n_samples=4000)
    assert abs(found.first - 0.5) < 0.02
    assert abs(found.mean - 0.125) < 0.005
    # <Z...Z> = product of cosines, whose derivative's variance is 2^-n
    whole = circuit_of(*turned(4).gates, n_qubits=4, n_weights=4, observables=("Z0 Z1 Z2 Z3",))
    assert abs(diagnostics.gradient_variance(whole, n_samples=4000).first - 2**-4) < 0.008


def test_gradients_are_those_of_autograd() -> None:
    circuit = make("data_reuploading", 3, 2)
    inputs, weights = diagnostics.draw(circuit, 3, 0)
    found = diagnostics.gradients(circuit, inputs, weights)
    from hcqsfl.quantum.backend.pennylane import build

    for x, w, row in zip(inputs, weights, found, strict=True):
        own = w.clone().requires_grad_()
        (expected,) = torch.autograd.grad(build(circuit)(x[None], own)[0, 0], own)
        assert (expected.reshape(-1) - row).abs().max() < 1e-10


def test_a_deep_circuit_has_a_barren_plateau_and_a_shallow_local_one_has_none() -> None:
    deep = [diagnostics.gradient_variance(make("strongly_entangling", n, 12), n_samples=100) for n in (2, 4, 6)]
    shallow = [diagnostics.gradient_variance(turned(n), n_samples=100) for n in (2, 4, 6)]
    assert diagnostics.decay(deep) < 0.75
    assert all(p.first > 0.4 for p in shallow)
    assert deep[2].first < 0.1


def test_effective_dimension_counts_the_weights_that_matter() -> None:
    kappa = 1000 / (2 * math.pi * math.log(1000))
    # one weight: <Z> = cos w has Fisher information sin^2 / (1 - cos^2) = 1 everywhere
    one = circuit_of(Gate("RY", (0,), (weight(0),)), n_qubits=1, n_weights=1)
    expected = math.log(1 + kappa) / math.log(kappa)
    assert abs(diagnostics.effective_dimension(one, n_data=1000, n_weights=10, n_inputs=2) - expected) < 1e-6
    # two weights that only act as their sum: the Fisher matrix is all ones and has one direction
    two = circuit_of(Gate("RY", (0,), (weight(0),)), Gate("RY", (0,), (weight(1),)), n_qubits=1, n_weights=2)
    expected = math.log(1 + 2 * kappa) / math.log(kappa)
    assert abs(diagnostics.effective_dimension(two, n_data=1000, n_weights=10, n_inputs=2) - expected) < 1e-6
    # a weight behind the measurement basis does nothing: the dimension is that of the one before it
    idle = circuit_of(Gate("RY", (0,), (weight(0),)), Gate("RZ", (0,), (weight(1),)), n_qubits=1, n_weights=2)
    assert abs(diagnostics.effective_dimension(idle, n_data=1000, n_weights=10, n_inputs=2) - expected) < 1e-6


def test_independent_directions_all_count() -> None:
    fisher = torch.eye(5, dtype=torch.float64).expand(7, 5, 5)
    assert abs(diagnostics.dimension_of(fisher, 100.0) - 5 * math.log(101) / math.log(100)) < 1e-10
    assert diagnostics.dimension_of(torch.zeros(2, 3, 3, dtype=torch.float64), 100.0) == 0


@pytest.mark.parametrize("name", sorted(CIRCUITS))
def test_every_circuit_is_diagnosed_and_the_seed_decides(name: str) -> None:
    circuit = make(name, 2 if name == "hqsl" else 3, 1)
    found = diagnostics.diagnose(circuit, n_samples=10, n_pairs=50, n_fisher=3)
    assert found == diagnostics.diagnose(circuit, n_samples=10, n_pairs=50, n_fisher=3)
    assert found != diagnostics.diagnose(circuit, n_samples=10, n_pairs=50, n_fisher=3, seed=1)
    assert 0 <= found.entanglement <= 1
    assert found.effective_dimension is not None
    assert 0 < found.effective_dimension < 1.5 * circuit.n_weights


def test_a_feature_map_alone_has_no_gradient() -> None:
    found = diagnostics.diagnose(make("iqp", 2, 0), n_samples=5, n_pairs=20)
    assert found.gradient is None
    assert found.effective_dimension is None


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: diagnostics.gradient_variance(make("iqp", 2, 0)), "no weights"),
        (lambda: diagnostics.gradient_variance(turned(2), n_samples=1), "at least 2"),
        (lambda: diagnostics.expressibility(turned(2), n_pairs=0), "at least 1"),
        (lambda: diagnostics.effective_dimension(turned(2), gamma=0), r"\(0, 1\], not 0"),
        (lambda: diagnostics.effective_dimension(turned(2), n_data=10), "take more data"),
        (lambda: diagnostics.decay([diagnostics.gradient_variance(turned(2))]), "two numbers of qubits"),
    ],
)
def test_impossible_diagnoses_are_refused(ask, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ask()


def test_the_table_has_a_row_a_size_and_says_what_cannot_be(tmp_path) -> None:
    options = {"n_samples": 20, "n_pairs": 50, "n_fisher": 3}
    found = diagnose_circuits(["hardware_efficient", "hqsl"], [2, 3], [1], out=tmp_path, **options)
    with (tmp_path / "diagnostics.csv").open() as file:
        table = list(csv.DictReader(file))
    assert tuple(table[0]) == COLUMNS
    sizes = [(row["circuit"], int(row["n_qubits"])) for row in table]
    assert sizes == [("hardware_efficient", 2), ("hardware_efficient", 3), ("hqsl", 2)]
    assert set(found.decays) == {"hardware_efficient, 1 layer"}
    assert "hqsl has 2 qubits, not 3" in found.skipped[0]
    assert (tmp_path / "diagnostics.svg").read_text().startswith("<?xml")
    with pytest.raises(ValueError, match="did you mean 'hqsl'"):
        diagnose_circuits(["hqls"], [2], [1])
    with pytest.raises(ValueError, match="no circuit can have these sizes"):
        diagnose_circuits(["hqsl"], [3], [1])
