"""A trained layer on an imperfect machine: noise after every gate, wrong readout, few shots.

After each gate of the circuit, on each wire that the gate acts on, stand in this order a depolarising, an amplitude
damping and a phase damping channel. ``Rot`` is one gate; encoding gates are gates; the first state is perfect. A
readout error flips each measured bit with one probability. This is PennyLane's ``default.mixed`` with
``DepolarizingChannel``, ``AmplitudeDamping`` and ``PhaseDamping`` behind every gate, and ``readout_prob``.

Up to six qubits the density matrix is computed, exactly and differentiably. Above, states are sampled: each trajectory
draws one Kraus operator a channel. Its state is divided by the square root of the drawn operator's probability, and
that number is held constant in the backward pass; so not only the value but also the gradient of a mean over
trajectories is an unbiased estimate of the density matrix's, though the probabilities depend on the weights.

With finite shots every observable is measured in shots of its own and the mean outcome is returned, an unbiased
estimate of the expectation value. Sampling has no derivative: the backward pass takes that of the expectation value
(straight-through), so the gradient is the one that the parameter-shift rule estimates on a machine.

Source:
    Nielsen and Chuang (2010), Quantum Computation and Quantum Information, section 8.3 (channels); Dalibard, Castin and
    Mølmer (1992), Wave-function approach to dissipative processes in quantum optics, Phys. Rev. Lett. 68, 580
    (trajectories).
"""

import copy
import hashlib
import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from hcqsfl.quantum.backend.plan import signs
from hcqsfl.quantum.circuit import Circuit, check_memory, total_memory
from hcqsfl.quantum.export import check_shots
from hcqsfl.quantum.layer import QuantumLayer
from hcqsfl.quantum.states import apply, check_numbers, first_tensor, gate_matrix
from hcqsfl.randomness import torch_generator
from hcqsfl.registry import lookup

METHODS = {
    "auto": "the density matrix for few qubits, trajectories above",
    "density": "the density matrix, exact",
    "trajectories": "sampled states",
}
DENSITY_UP_TO = 6
"""Qubits up to which ``"auto"`` computes the density matrix."""


@dataclass(frozen=True)
class Noise:
    """Strengths of the noise, each a probability in [0, 1].

    Attributes:
        depolarising: chance of one of X, Y, Z, each a third.
        amplitude_damping: chance that an excited qubit decays.
        phase_damping: chance that the environment learns a qubit's value.
        readout: chance that a measured bit is flipped.

    Raises:
        ValueError: a strength is outside [0, 1].
    """

    depolarising: float = 0.0
    amplitude_damping: float = 0.0
    phase_damping: float = 0.0
    readout: float = 0.0

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if not 0 <= value <= 1:
                raise ValueError(f"{each.name.replace('_', ' ')} is a probability in [0, 1], not {value}")

    @property
    def of_gates(self) -> bool:
        """Whether anything happens after a gate."""
        return any((self.depolarising, self.amplitude_damping, self.phase_damping))


PERFECT = Noise()


def kraus(noise: Noise) -> list[Tensor]:
    """Return the Kraus operators of the channels after a gate, ``(m, 2, 2)`` complex128 each, in order of time."""
    p, a, d = noise.depolarising, noise.amplitude_damping, noise.phase_damping
    paulis: list[list[list[complex]]] = [[[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]]
    operators: list[list[tuple[float, list[list[complex]]]]] = [
        [(math.sqrt(1 - p), [[1, 0], [0, 1]]), *((math.sqrt(p / 3), pauli) for pauli in paulis)],
        [(1.0, [[1, 0], [0, math.sqrt(1 - a)]]), (math.sqrt(a), [[0, 1], [0, 0]])],
        [(1.0, [[1, 0], [0, math.sqrt(1 - d)]]), (math.sqrt(d), [[0, 0], [0, 1]])],
    ]
    return [
        torch.stack([factor * torch.tensor(matrix, dtype=torch.complex128) for factor, matrix in channel])
        for channel, strength in zip(operators, (p, a, d), strict=True)
        if strength
    ]


def density_matrix(circuit: Circuit, inputs: Tensor, weights: Tensor, noise: Noise) -> Tensor:
    """Return the final density matrices ``(b, 2**n, 2**n)``.

    Args:
        circuit: what to run.
        inputs: ``(b, n_inputs)``.
        weights: of the circuit's shape, or flat; their dtype sets the precision.
        noise: its readout error plays no part here.

    Raises:
        ValueError: inputs or weights do not fit, or the matrices do not fit into memory.
    """
    check_numbers(circuit, inputs, weights)
    n, flat = circuit.n_qubits, weights.reshape(-1)
    real = inputs.to(flat.dtype)
    dtype = flat.dtype.to_complex()
    _check_matrices(circuit, len(real), dtype)
    psi = first_tensor(circuit, real, dtype).reshape(len(real), -1)
    rho = (psi[:, :, None] * psi.conj()[:, None]).reshape(len(real), *(2,) * (2 * n))
    channels = [_of_channels(noise, n_wires).to(flat.device, dtype) for n_wires in (1, 2)]
    for gate in circuit.gates:
        matrix = gate_matrix(gate, real, flat)
        size = matrix.shape[-1]
        both = torch.einsum("...ij,...kl->...ikjl", matrix, matrix.conj())
        step = channels[len(gate.wires) - 1] @ both.reshape(*both.shape[:-4], size**2, size**2)
        # on kets and bras at once: one product a gate
        rho = apply(step, rho, (*gate.wires, *(n + wire for wire in gate.wires)))
    return rho.reshape(len(real), 2**n, 2**n)


def _of_channels(noise: Noise, n_wires: int) -> Tensor:
    """Return the channels after a gate as a matrix on (kets, bras) of its wires: ``(4**n_wires, 4**n_wires)``."""
    one = torch.eye(4, dtype=torch.complex128)
    for operators in kraus(noise):
        one = torch.einsum("mij,mkl->ikjl", operators, operators.conj()).reshape(4, 4) @ one
    if n_wires == 1:
        return one
    # (ket, bra, ket, bra) of two wires to (ket, ket, bra, bra)
    return torch.kron(one, one).reshape((2,) * 8).permute(0, 2, 1, 3, 4, 6, 5, 7).reshape(16, 16)


def trajectories(
    circuit: Circuit, inputs: Tensor, weights: Tensor, noise: Noise, n_trajectories: int, generator: torch.Generator
) -> Tensor:
    """Return sampled final states ``(b, n_trajectories, 2**n)``; the mean of their projectors is the density matrix.

    Args:
        circuit, inputs, weights, noise: as ``density_matrix``.
        n_trajectories: how many a sample.
        generator: of the CPU; draws the Kraus operators.

    Raises:
        ValueError: inputs or weights do not fit, ``n_trajectories`` is below 1, or the states do not fit into memory.
    """
    check_numbers(circuit, inputs, weights)
    if n_trajectories < 1:
        raise ValueError(f"{n_trajectories} trajectories were asked for; at least 1 is needed")
    flat = weights.reshape(-1)
    dtype = flat.dtype.to_complex()
    _check_trajectories(circuit, len(inputs), n_trajectories, dtype)
    real = inputs.to(flat.dtype).repeat_interleave(n_trajectories, dim=0)
    state = first_tensor(circuit, real, dtype)
    for gate in circuit.gates:
        state = apply(gate_matrix(gate, real, flat), state, gate.wires)
        for wire in gate.wires:
            state = apply(_draw(noise, state, wire, generator), state, (wire,))
    return state.reshape(len(inputs), n_trajectories, -1)


def _draw(noise: Noise, state: Tensor, wire: int, generator: torch.Generator) -> Tensor:
    """Return for each row the product of the Kraus operators drawn for a wire, divided by its probability's root."""
    rows, like = len(state), state.real.detach()

    def chance() -> Tensor:
        return torch.rand(rows, generator=generator).to(like.device, like.dtype)

    with torch.no_grad():
        kind = chance()  # below a third of p: X, then Y, then Z
        third = noise.depolarising / 3
        flips, signs = kind < 2 * third, (kind >= third) & (kind < 3 * third)
        excited = state.detach().movedim(wire + 1, 1)[:, 1].reshape(rows, -1)
        p1 = (excited.real.square() + excited.imag.square()).sum(1)
        p1 = torch.where(flips, 1 - p1, p1).clamp(0, 1)
        decay = noise.amplitude_damping * p1
        decays = chance() < decay
        # phase damping is a phase flip of this probability
        turned = chance() < (1 - math.sqrt(1 - noise.phase_damping)) / 2
        one = torch.ones_like(p1)
        sign = torch.where(signs, -one, one)
        pauli = torch.stack([one * ~flips, sign * flips, one * flips, sign * ~flips], 1).view(rows, 2, 2)
        stays = 1 / (1 - decay).clamp(min=torch.finfo(p1.dtype).tiny).sqrt()
        damped = torch.zeros(rows, 2, 2, dtype=p1.dtype, device=p1.device)
        damped[:, 0, 0] = torch.where(decays, 0, stays)
        damped[:, 1, 1] = torch.where(decays, 0, stays * math.sqrt(1 - noise.amplitude_damping))
        damped[:, 0, 1] = torch.where(decays, 1 / p1.clamp(min=torch.finfo(p1.dtype).tiny).sqrt(), 0)
        damped[:, 1] *= torch.where(turned, -one, one)[:, None]
        return (damped @ pauli).to(state.dtype)


def _check_matrices(circuit: Circuit, b: int, dtype: torch.dtype) -> None:
    _check_memory(circuit, b * 4**circuit.n_qubits, dtype, f"the density matrices of {b} samples")


def _check_trajectories(circuit: Circuit, b: int, n_trajectories: int, dtype: torch.dtype) -> None:
    _check_memory(
        circuit, b * n_trajectories * 2**circuit.n_qubits, dtype, f"{n_trajectories} trajectories of {b} samples"
    )


def _check_memory(circuit: Circuit, numbers: int, dtype: torch.dtype, what: str) -> None:
    # a backward pass holds the result of every gate; without one, a few are alive at once
    needed = numbers * (len(circuit.gates) + 2 if torch.is_grad_enabled() else 4) * dtype.itemsize
    if needed >= 2**28 and needed > (memory := total_memory()):
        raise ValueError(
            f"{what} on {circuit.n_qubits} qubits need {needed / 2**30:,.1f} GiB, and this machine has "
            f"{memory / 2**30:,.1f} GiB; take fewer qubits, a smaller batch or fewer trajectories"
        )


class NoisyLayer(nn.Module):
    """A quantum layer evaluated, and if wanted trained, under noise; it shares the weights of the one it wraps.

    Args:
        layer: the layer, trained or to be trained.
        noise: how strong it is.
        shots: samples of each observable, or None for exact expectation values.
        method: a key of ``METHODS``.
        n_trajectories: states sampled for each sample of a batch where trajectories are.
        seed: of trajectories and shots.
        fresh: each call draws anew, and ``rewind`` starts over. If False, what is drawn depends on the seed, the inputs
            and the weights alone: a training that is interrupted and resumed, or sends a lost step again, draws what
            an undisturbed one draws, and no counter has to be kept.

    Shape:
        ``(b, n_inputs)`` to ``(b, n_observables)``, as the layer.

    Raises:
        ValueError: ``shots`` or ``n_trajectories`` is below 1, or there is no such method.
    """

    def __init__(
        self,
        layer: QuantumLayer,
        noise: Noise = PERFECT,
        *,
        shots: int | None = None,
        method: str = "auto",
        n_trajectories: int = 100,
        seed: int = 0,
        fresh: bool = True,
    ) -> None:
        super().__init__()
        check_shots(shots)
        lookup("way to compute noise", METHODS, method)
        if n_trajectories < 1:
            raise ValueError(f"{n_trajectories} trajectories were asked for; at least 1 is needed")
        self.layer, self.noise, self.shots = layer, noise, shots
        few = layer.circuit.n_qubits <= DENSITY_UP_TO
        self.method = ("density" if few else "trajectories") if method == "auto" else method
        self.n_trajectories, self.seed, self.fresh, self.calls = n_trajectories, seed, fresh, 0

    @property
    def circuit(self) -> Circuit:
        """The circuit of the layer."""
        return self.layer.circuit

    @property
    def weights(self) -> nn.Parameter:
        """The weights of the layer."""
        return self.layer.weights

    def rewind(self) -> None:
        """Draw from now on what was drawn from the first call on."""
        self.calls = 0

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the noisy expectation values, or their estimates ``(b, n_observables)``.

        Raises:
            ValueError: as ``QuantumLayer``, or the noisy states do not fit into memory.
        """
        generator = self._generator(inputs)
        values = self.expectations(inputs, generator)
        if self.shots is None:
            return values
        chances = ((1 + values.detach().double()) / 2).clamp(0, 1).cpu()
        counts = torch.binomial(torch.full_like(chances, float(self.shots)), chances, generator=generator)
        means = (2 * counts / self.shots - 1).to(values)
        return values + (means - values).detach()

    def _generator(self, inputs: Tensor) -> torch.Generator:
        if self.fresh:
            self.calls += 1
            return torch_generator(self.seed, "noise", self.calls - 1)
        digest = hashlib.sha256()
        for numbers in (inputs, self.weights):
            digest.update(numbers.detach().cpu().contiguous().numpy().tobytes())
        return torch_generator(self.seed, "noise", digest.hexdigest())

    def check_memory(self, b: int) -> None:
        """Refuse a batch whose noisy states, and what a backward pass holds of them, cannot fit into memory.

        Raises:
            ValueError: they need more than there is; the message says how much.
        """
        if not self.noise.of_gates:
            check_memory(self.circuit, b, self.layer.dtype)
        elif self.method == "density":
            _check_matrices(self.circuit, b, self.layer.dtype)
        else:
            _check_trajectories(self.circuit, b, self.n_trajectories, self.layer.dtype)

    def expectations(self, inputs: Tensor, generator: torch.Generator) -> Tensor:
        """Return the noisy expectation values ``(b, n_observables)`` before any shot is taken."""
        correct = torch.tensor(
            [(1 - 2 * self.noise.readout) ** len(observable.paulis) for observable in self.circuit.paulis],
            dtype=inputs.dtype,
            device=inputs.device,
        )
        if not self.noise.of_gates:
            ideal: Tensor = self.layer(inputs)
            return ideal * correct
        if not len(inputs):
            return inputs.new_zeros(0, self.circuit.n_observables)
        if self.method == "density":
            values = of_density(self.circuit, density_matrix(self.circuit, inputs, self.weights, self.noise))
        else:
            drawn = trajectories(self.circuit, inputs, self.weights, self.noise, self.n_trajectories, generator)
            values = of_states(self.circuit, drawn).mean(1)
        return values.to(inputs.dtype) * correct

    def extra_repr(self) -> str:
        """Return noise and method for ``print``."""
        return f"{self.noise}, shots={self.shots}, method={self.method}"


def of_density(circuit: Circuit, rho: Tensor) -> Tensor:
    """Return the expectation values ``(b, n_observables)`` of density matrices ``(b, 2**n, 2**n)``."""
    here = torch.arange(2**circuit.n_qubits, device=rho.device)
    values = [(rho[:, place, here] * factor).sum(1).real for place, factor in _words(circuit, rho)]
    return torch.stack(values, 1)


def of_states(circuit: Circuit, states: Tensor) -> Tensor:
    """Return the expectation values ``(..., n_observables)`` of states ``(..., 2**n)``."""
    values = [(states.conj() * factor * states[..., place]).sum(-1).real for place, factor in _words(circuit, states)]
    return torch.stack(values, -1)


def _words(circuit: Circuit, like: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return for each observable which amplitude it puts where, and by what factor."""
    n = circuit.n_qubits
    here = torch.arange(2**n, device=like.device)
    found = []
    for observable in circuit.paulis:
        bits = {
            letter: sum(1 << (n - 1 - wire) for each, wire in observable.paulis if each == letter) for letter in "XYZ"
        }
        place = here ^ (bits["X"] | bits["Y"])
        factor = 1j ** bits["Y"].bit_count() * signs([bits["Y"] | bits["Z"]], n)[:, 0]
        found.append((place, torch.as_tensor(factor).to(like.device, like.dtype)[place]))
    return found


def with_noise(network: nn.Module, noise: Noise = PERFECT, **options: object) -> nn.Module:
    """Return a copy of a network whose quantum layers are noisy; noise that they had been given before is replaced.

    Args:
        network: what to copy; it may itself be a quantum layer.
        noise: how strong it is.
        options: what ``NoisyLayer`` takes besides.

    Raises:
        ValueError: there is no quantum layer in it, or an option is out of range.
    """
    copied = nn.ModuleDict({"network": copy.deepcopy(network)})
    places = [
        (parent, name)
        for parent in copied.modules()
        for name, child in parent.named_children()
        if isinstance(child, QuantumLayer | NoisyLayer) and not isinstance(parent, NoisyLayer)
    ]
    if not places:
        raise ValueError("the network has no quantum layer, so there is nothing for noise to act on")
    for parent, name in places:
        child = parent.get_submodule(name)
        layer = child.layer if isinstance(child, NoisyLayer) else child
        setattr(parent, name, NoisyLayer(layer, noise, **options))  # type: ignore[arg-type]
    return copied["network"]
