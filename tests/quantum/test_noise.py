import math
from dataclasses import replace

import pennylane as qml
import pytest
import torch
from torch import nn

from hcqsfl.quantum.backend.lowering import normalised
from hcqsfl.quantum.backend.pennylane import OPERATIONS
from hcqsfl.quantum.circuits import CIRCUITS, make
from hcqsfl.quantum.layer import QuantumLayer
from hcqsfl.quantum.noise import Noise, NoisyLayer, density_matrix, kraus, of_density, trajectories, with_noise
from hcqsfl.randomness import torch_generator
from hcqsfl.recipes.noise_sweep import noise_sweep
from hcqsfl.recipes.trained import Trained

ALL = Noise(depolarising=0.04, amplitude_damping=0.07, phase_damping=0.05, readout=0.03)
CHANNELS = {
    "depolarising": qml.DepolarizingChannel,
    "amplitude_damping": qml.AmplitudeDamping,
    "phase_damping": qml.PhaseDamping,
}


def layer_of(name: str, n_qubits: int = 3, n_layers: int = 1, **options: object) -> QuantumLayer:
    torch.manual_seed(3)
    circuit = make(name, 2 if name == "hqsl" else n_qubits, n_layers, **options)
    return QuantumLayer(circuit, dtype=torch.complex128, backend="fused")


def rows_of(layer: QuantumLayer, n: int = 3) -> torch.Tensor:
    return torch.randn(n, layer.circuit.n_inputs, dtype=torch.float64)


def mixed(layer: QuantumLayer, noise: Noise, row: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """PennyLane's density matrices, the channels put behind every gate by hand.

    So are the readout errors, as bit flips before a measurement of Z: 0.45 fails on ``readout_prob`` itself. It also
    mixes complex64 matrices into torch's complex128, so angles that need no gradient are given as plain numbers.
    """
    circuit = layer.circuit
    plain = not (row.requires_grad or weights.requires_grad)

    @qml.qnode(qml.device("default.mixed", wires=circuit.n_qubits), interface="torch", diff_method="backprop")
    def run(row, weights, observable):
        if circuit.start == "amplitudes":
            qml.StatePrep(normalised(circuit, row).numpy(), wires=range(circuit.n_qubits))
        for gate in circuit.gates:
            angles = [angle.value(row, weights.reshape(-1)) for angle in gate.angles]
            OPERATIONS[gate.name](*(float(a) if plain else a for a in angles), wires=list(gate.wires))
            for wire in gate.wires:
                for name, channel in CHANNELS.items():
                    channel(getattr(noise, name), wires=wire)
        for letter, wire in observable.paulis:
            if letter == "Y":
                qml.adjoint(qml.S(wire))
            if letter in "XY":
                qml.Hadamard(wire)
            qml.BitFlip(noise.readout, wires=wire)
        return qml.expval(qml.prod(*(qml.PauliZ(wire) for _, wire in observable.paulis)))

    return torch.stack([torch.as_tensor(run(row, weights, observable)) for observable in circuit.paulis])


@pytest.mark.parametrize("name", sorted(CIRCUITS))
def test_every_circuit_under_all_noise_is_default_mixed(name: str) -> None:
    layer = layer_of(name)
    rows = rows_of(layer, 2)
    theirs = torch.stack([mixed(layer, ALL, row, layer.weights.detach()) for row in rows])
    assert (NoisyLayer(layer, ALL)(rows) - theirs).abs().max() < 1e-10
    assert (NoisyLayer(layer, ALL)(rows) - layer(rows)).abs().max() > 1e-3


@pytest.mark.parametrize("kind", [*CHANNELS, "readout"])
@pytest.mark.parametrize("strength", [0.2, 0.9])
def test_each_noise_alone_is_default_mixeds_in_every_basis(kind: str, strength: float) -> None:
    layer = layer_of("strongly_entangling", observables=("X0 Y2", "Z1", "Y0", "Z0 Z1 Z2"))
    row = rows_of(layer, 1)[0]
    noise = Noise(**{kind: strength})
    theirs = mixed(layer, noise, row, layer.weights.detach())
    assert (NoisyLayer(layer, noise)(row[None])[0] - theirs).abs().max() < 1e-10


def test_gradients_to_inputs_and_weights_are_default_mixeds() -> None:
    layer = layer_of("data_reuploading", 2)
    row = rows_of(layer, 1)[0].requires_grad_()
    weights = layer.weights.detach().clone().requires_grad_()
    theirs = torch.autograd.grad(mixed(layer, ALL, row, weights).square().sum(), [row, weights])
    ours = torch.autograd.grad(NoisyLayer(layer, ALL)(row[None]).square().sum(), [row, layer.weights])
    for a, b in zip(ours, theirs, strict=True):
        assert (a - b).abs().max() < 1e-10


def test_kraus_operators_keep_the_trace_and_are_pennylanes() -> None:
    channels = kraus(ALL)
    for ours, (name, channel) in zip(channels, CHANNELS.items(), strict=True):
        assert ((ours.mH @ ours).sum(0) - torch.eye(2)).abs().max() < 1e-12
        theirs = channel(getattr(ALL, name), wires=0).kraus_matrices()
        for a, b in zip(ours, theirs, strict=True):
            assert (a - torch.as_tensor(b)).abs().max() < 1e-12


def test_density_matrices_have_trace_one_and_no_negative_eigenvalue() -> None:
    layer = layer_of("iqp")
    rho = density_matrix(layer.circuit, rows_of(layer), layer.weights.detach(), ALL)
    assert (torch.linalg.eigvalsh(rho).min()) > -1e-12
    assert (torch.einsum("bii->b", rho) - 1).abs().max() < 1e-12
    assert (torch.einsum("bij,bji->b", rho, rho).real < 0.99).all()


def test_full_depolarising_leaves_nothing_to_see() -> None:
    layer = layer_of("strongly_entangling")
    assert NoisyLayer(layer, Noise(depolarising=0.75))(rows_of(layer)).abs().max() < 1e-12


def test_trajectories_average_to_the_density_matrix() -> None:
    layer = layer_of("hardware_efficient", observables=("X0 Y2", "Z1", "Z0"))
    rows, n = rows_of(layer, 2), 6000
    weights = layer.weights.detach()
    states = trajectories(layer.circuit, rows, weights, ALL, n, torch_generator(0, "test"))
    assert (states.abs().square().sum(-1) - 1).abs().max() < 1e-10
    mean = torch.einsum("bti,btj->bij", states, states.conj()) / n
    exact = density_matrix(layer.circuit, rows, weights, ALL)
    # an entry of a projector varies by less than 1, so its mean by less than 1 / sqrt(n)
    assert (mean - exact).abs().max() < 4 / math.sqrt(n)
    assert (of_density(layer.circuit, mean) - of_density(layer.circuit, exact)).abs().max() < 4 / math.sqrt(n)


def test_strong_damping_has_unbiased_gradients_by_trajectories() -> None:
    """The probability of a decay depends on the weights; a gradient that forgets this would be off by far."""
    layer = layer_of("basic_entangler", 2)
    noise = Noise(amplitude_damping=0.4, phase_damping=0.2)
    rows = rows_of(layer, 1)
    (exact,) = torch.autograd.grad(NoisyLayer(layer, noise)(rows).sum(), layer.weights)
    many = NoisyLayer(layer, noise, method="trajectories", n_trajectories=20_000)
    (drawn,) = torch.autograd.grad(many(rows).sum(), layer.weights)
    assert exact.abs().max() > 0.1
    assert (drawn - exact).abs().max() < 0.05


def test_more_qubits_than_six_are_sampled_and_the_seed_decides() -> None:
    layer = layer_of("strongly_entangling", 7)
    rows = rows_of(layer, 2)
    noisy = NoisyLayer(layer, Noise(depolarising=0.02), n_trajectories=20, seed=5)
    assert noisy.method == "trajectories"
    first, second = noisy(rows), noisy(rows)
    assert not torch.equal(first, second)
    noisy.rewind()
    assert torch.equal(noisy(rows), first)
    assert not torch.equal(NoisyLayer(layer, noisy.noise, n_trajectories=20, seed=6)(rows), first)


def test_shots_are_unbiased_means_of_outcomes_and_pass_the_exact_gradient() -> None:
    layer = layer_of("strongly_entangling")
    rows = rows_of(layer, 1)
    noisy = NoisyLayer(layer, ALL, shots=50)
    exact = NoisyLayer(layer, ALL)(rows)
    drawn = torch.stack([noisy(rows) for _ in range(400)])[:, 0].detach()
    steps = (drawn + 1) * 25
    assert (steps - steps.round()).abs().max() < 1e-9
    # the variance of a mean of 50 outcomes +-1 is (1 - E^2) / 50
    deviation = ((1 - exact.detach()[0] ** 2) / 50).sqrt()
    assert ((drawn.mean(0) - exact[0]).abs() < 4 * deviation / math.sqrt(400)).all()
    assert (drawn.std(0) / deviation - 1).abs().max() < 0.15
    gradients = [torch.autograd.grad(each(rows).sum(), layer.weights)[0] for each in (noisy, NoisyLayer(layer, ALL))]
    assert (gradients[0] - gradients[1]).abs().max() < 1e-12


def test_a_network_is_trained_under_noise_with_shared_weights() -> None:
    torch.manual_seed(0)
    layer = layer_of("hardware_efficient", 2, 2)
    noisy = NoisyLayer(layer, Noise(depolarising=0.01, readout=0.02), shots=200)
    x = torch.rand(40, 2, dtype=torch.float64) * 6 - 3
    y = 0.7 * torch.cos(x[:, 0])
    optimizer = torch.optim.Adam(noisy.parameters(), lr=0.2)
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        loss = (noisy(x)[:, 0] - y).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert noisy.weights is layer.weights
    assert losses[-1] < 0.2 * losses[0]


def test_a_networks_quantum_layers_become_noisy_in_a_copy() -> None:
    network = nn.Sequential(nn.Linear(4, 3), nn.Sequential(layer_of("basic_entangler").float(), nn.Linear(3, 2)))
    x = torch.randn(5, 4)
    before = network(x)
    noisy = with_noise(network, Noise(depolarising=0.1))
    assert isinstance(noisy[1][0], NoisyLayer)
    assert isinstance(network[1][0], QuantumLayer)
    assert torch.equal(network(x), before)
    assert not torch.allclose(noisy(x), before)
    assert isinstance(with_noise(layer_of("iqp"), Noise(readout=0.1)), NoisyLayer)
    with pytest.raises(ValueError, match="no quantum layer"):
        with_noise(nn.Linear(2, 2))


@pytest.mark.parametrize(
    ("make_it", "message"),
    [
        (lambda layer: Noise(depolarising=1.2), r"depolarising is a probability in \[0, 1\], not 1.2"),
        (lambda layer: Noise(phase_damping=-0.1), r"phase damping is a probability"),
        (lambda layer: Noise(readout=math.nan), r"not nan"),
        (lambda layer: NoisyLayer(layer, shots=0), "0 shots were asked for"),
        (lambda layer: NoisyLayer(layer, shots=-3), "-3 shots"),
        (lambda layer: NoisyLayer(layer, n_trajectories=0), "0 trajectories"),
        (lambda layer: NoisyLayer(layer, method="densty"), "did you mean 'density'"),
        (lambda layer: NoisyLayer(layer, ALL)(torch.full((1, 3), math.nan)), "3 of 3 inputs are NaN"),
        (
            lambda layer: NoisyLayer(layer_of("basic_entangler", 14), ALL, method="density")(torch.zeros(8, 14)),
            "density matrices of 8 samples on 14 qubits need .* GiB",
        ),
    ],
)
def test_impossible_noise_is_refused(make_it, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_it(layer_of("basic_entangler"))


def trained_network() -> tuple[Trained, nn.Module]:
    """A hybrid network that tells two classes of made-up rows apart nearly perfectly."""
    torch.manual_seed(0)
    y = torch.arange(80) % 2
    x = torch.randn(80, 2) * 0.3 + (y[:, None] * 2 - 1)
    network = nn.Sequential(QuantumLayer(make("hardware_efficient", 2, 1), backend="fused"), nn.Linear(2, 2))
    optimizer = torch.optim.Adam(network.parameters(), lr=0.1)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x), y).backward()
        optimizer.step()
    subject = torch.arange(80).numpy() % 8
    return Trained((network,), x, y.numpy(), subject.astype(str), ("a", "b")), network


def test_a_sweep_starts_at_the_perfect_machine_and_ends_in_chance(tmp_path) -> None:
    trained, network = trained_network()
    sweep = noise_sweep(
        [trained],
        kinds=("depolarising", "readout"),
        strengths=(0.001, 0.75),
        shots=(4, 4096),
        metric="accuracy",
        n_resamples=50,
        out=tmp_path,
    )
    perfect = (network(trained.x).argmax(1).numpy() == trained.y).mean()
    by_level = {(p.kind, p.level): p.score for p in sweep.points}
    assert sweep.perfect.score.value == perfect > 0.95
    assert len(sweep.points) == 1 + 2 * 2 + 2
    assert by_level["depolarising", 0.001].value == perfect
    # full depolarising leaves nothing: every row gets the same class, half of them right
    assert by_level["depolarising", 0.75].value == 0.5
    assert by_level["shots", 4].value < by_level["shots", 4096].value
    assert (tmp_path / "noise_sweep.csv").read_text().count("\n") == 8
    assert "depolarising" in (tmp_path / "noise_sweep.json").read_text()
    assert (tmp_path / "noise_sweep.svg").read_text().startswith("<?xml")
    assert isinstance(network[0], QuantumLayer)


def test_impossible_sweeps_are_refused() -> None:
    trained, _ = trained_network()
    with pytest.raises(ValueError, match="did you mean 'depolarising'"):
        noise_sweep([trained], kinds=("depolarizing",))
    with pytest.raises(ValueError, match="no trained network"):
        noise_sweep([])
    with pytest.raises(ValueError, match="0 shots"):
        noise_sweep([trained], kinds=(), shots=(0,), n_resamples=5)
    with pytest.raises(ValueError, match="no quantum layer"):
        noise_sweep([replace(trained, networks=(nn.Linear(2, 2),))], n_resamples=5)
