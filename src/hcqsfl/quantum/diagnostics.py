"""What a circuit can do before any data are seen: gradients, expressibility, entanglement, effective dimension.

Every number is an estimate from circuits with weights drawn uniformly from [0, 2 pi) and inputs from [-pi, pi), the
bounded angles of a trunk; the seed decides all draws.

Source:
    McClean et al. (2018), Barren plateaus in quantum neural network training landscapes, Nature Communications 9, 4812;
    Sim, Johnson and Aspuru-Guzik (2019), Expressibility and entangling capability of parameterized quantum circuits,
    Adv. Quantum Technol. 2, 1900070; Meyer and Wallach (2002), Global entanglement in multiparticle systems, J. Math.
    Phys. 43, 4273; Abbas et al. (2021), The power of quantum neural networks, Nature Computational Science 1, 403.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from hcqsfl.quantum.backend.fused import fused_of
from hcqsfl.quantum.circuit import Circuit, in_layers, on_every_qubit
from hcqsfl.quantum.states import reduced, states_by_weights
from hcqsfl.randomness import torch_generator

_AT_ONCE = 2**21
"""Amplitudes held at once."""


def draw(circuit: Circuit, n: int, seed: int, *names: str | int) -> tuple[Tensor, Tensor]:
    """Return ``n`` random inputs ``(n, n_inputs)`` and weights ``(n, *weight_shape)`` in double precision."""
    generator = torch_generator(seed, "diagnostics", *names)
    inputs = (torch.rand(n, circuit.n_inputs, generator=generator, dtype=torch.float64) * 2 - 1) * math.pi
    weights = torch.rand(n, *circuit.weight_shape, generator=generator, dtype=torch.float64) * 2 * math.pi
    return inputs, weights


def random_states(circuit: Circuit, n: int, seed: int, *names: str | int) -> Tensor:
    """Return the states ``(n, 2**n_qubits)`` of the circuit with random inputs and weights."""
    inputs, weights = draw(circuit, n, seed, *names)
    at_once = max(1, _AT_ONCE // 2**circuit.n_qubits)
    with torch.no_grad():
        parts = zip(inputs.split(at_once), weights.split(at_once), strict=True)
        return torch.cat([states_by_weights(circuit, x, w) for x, w in parts])


def gradients(circuit: Circuit, inputs: Tensor, weights: Tensor) -> Tensor:
    """Return the gradient of the first observable to the weights, one row a pair of inputs and weights.

    Args:
        circuit: what to differentiate.
        inputs: ``(n, n_inputs)``.
        weights: ``(n, *weight_shape)``.

    Returns:
        ``(n, n_weights)``.
    """
    values = fused_of(replace(circuit, observables=circuit.observables[:1])).values

    def value(own: Tensor, sample: Tensor) -> Tensor:
        return values(sample[None], own)[0, 0]

    gradient = torch.func.vmap(torch.func.grad(value))
    at_once = max(1, _AT_ONCE // (2**circuit.n_qubits * max(1, circuit.n_layers)))
    found = [gradient(w, x).flatten(1) for x, w in zip(inputs.split(at_once), weights.split(at_once), strict=True)]
    return torch.cat(found)


@dataclass(frozen=True)
class GradientVariance:
    """How far gradients spread over random circuits.

    Attributes:
        n_qubits, n_layers: the size.
        first: variance of the derivative to the first weight, as McClean et al. plot it.
        mean: variance of the derivative, mean over all weights.
        n_samples: circuits drawn.
    """

    n_qubits: int
    n_layers: int
    first: float
    mean: float
    n_samples: int


def gradient_variance(circuit: Circuit, *, n_samples: int = 200, seed: int = 0) -> GradientVariance:
    """Return the variance of the first observable's gradient over random weights and inputs.

    On a barren plateau it falls exponentially with the number of qubits.

    Raises:
        ValueError: the circuit has no weights, or fewer than 2 samples were asked for.
    """
    _check_trainable(circuit)
    _check_samples(n_samples, 2)
    spread = gradients(circuit, *draw(circuit, n_samples, seed, "gradients")).var(0, correction=1)
    return GradientVariance(circuit.n_qubits, circuit.n_layers, spread[0].item(), spread.mean().item(), n_samples)


def decay(points: Sequence[GradientVariance]) -> float:
    """Return by what factor the mean variance is multiplied for each qubit more: a straight line through its logarithm.

    Raises:
        ValueError: there are fewer than two numbers of qubits.
    """
    n = np.array([p.n_qubits for p in points], float)
    if len(set(n)) < 2:
        raise ValueError("how gradients fall with the number of qubits needs at least two numbers of qubits")
    return float(np.exp(np.polyfit(n, np.log([p.mean for p in points]), 1)[0]))


def haar_divergence(fidelities: Tensor, n_qubits: int, n_bins: int = 75) -> float:
    """Return the Kullback-Leibler divergence of a histogram of fidelities from that of random states, in nats.

    The fidelity of two Haar-random states has the density ``(N - 1)(1 - F)^(N - 2)`` with ``N = 2**n_qubits``, of which
    each bin is given its exact share.

    Args:
        fidelities: ``(n,)`` in [0, 1].
        n_qubits: of the states.
        n_bins: equal bins of [0, 1]; the result depends on their number.
    """
    edges = np.linspace(0, 1, n_bins + 1)
    counts = np.histogram(fidelities.clamp(0, 1).numpy(), edges)[0]
    share = counts / counts.sum()
    power = 2**n_qubits - 1
    with np.errstate(divide="ignore"):
        # log((1 - a)^p - (1 - b)^p), which underflows outside the logarithm
        upper, lower = power * np.log1p(-edges[:-1]), power * np.log1p(-edges[1:])
        log_haar = upper + np.log(-np.expm1(lower - upper))
    seen = share > 0
    return float((share[seen] * (np.log(share[seen]) - log_haar[seen])).sum())


def expressibility(circuit: Circuit, *, n_pairs: int = 5000, n_bins: int = 75, seed: int = 0) -> float:
    """Return how far the circuit's states are from covering the state space evenly: 0 is best, in nats.

    Even Haar-random states give about ``(n_bins - 1) / (2 n_pairs)`` or less, for the histogram is finite.

    Raises:
        ValueError: fewer than 1 pair was asked for.
    """
    _check_samples(n_pairs, 1)
    left, right = random_states(circuit, n_pairs, seed, "left"), random_states(circuit, n_pairs, seed, "right")
    return haar_divergence((left.conj() * right).sum(1).abs().square(), circuit.n_qubits, n_bins)


def meyer_wallach(states: Tensor) -> Tensor:
    """Return the entanglement ``Q (b,)`` of pure states ``(b, 2**n)``: 0 for product states, 1 for GHZ states.

    ``Q = 2 (1 - mean_k tr rho_k^2)`` over the single qubits' density matrices (Brennen's form).
    """
    rho = reduced(states)
    purity = (rho.real.square() + rho.imag.square()).sum((-2, -1))  # (b, n_qubits)
    return 2 * (1 - purity.mean(1))


def entangling_capability(circuit: Circuit, *, n_samples: int = 2000, seed: int = 0) -> float:
    """Return the mean Meyer-Wallach entanglement of random states of the circuit; Haar-random ones have (N-2)/(N+1).

    Raises:
        ValueError: fewer than 1 sample was asked for.
    """
    _check_samples(n_samples, 1)
    return meyer_wallach(random_states(circuit, n_samples, seed, "entanglement")).mean().item()


def effective_dimension(
    circuit: Circuit,
    *,
    n_data: int = 10_000,
    gamma: float = 1.0,
    n_weights: int = 100,
    n_inputs: int = 100,
    seed: int = 0,
) -> float:
    """Return the effective dimension of the circuit as a classifier of two classes.

    It tends to the number of directions in which the weights matter as ``n_data`` grows, from above where they all do.

    The class is the parity of all qubits, ``p(y | x, w) = (1 +- <Z...Z>) / 2``, as in Abbas et al.; the Fisher
    information is exact over y and a mean over random inputs, its volume a mean over random weights.

    Args:
        circuit: what to judge; its own observables play no part.
        n_data: number of data that set the scale, ``kappa = gamma n / (2 pi log n)``.
        gamma: in (0, 1].
        n_weights: weights drawn.
        n_inputs: inputs drawn for each of them.
        seed: of the draws.

    Raises:
        ValueError: the circuit has no weights, or ``gamma`` or ``n_data`` leave no scale.
    """
    _check_trainable(circuit)
    if not 0 < gamma <= 1:
        raise ValueError(f"the gamma of an effective dimension lies in (0, 1], not {gamma}")
    if n_data < 2 or (kappa := gamma * n_data / (2 * math.pi * math.log(n_data))) <= 1:
        raise ValueError(f"{n_data} data with gamma {gamma} give no scale to measure a dimension at; take more data")
    parity = replace(circuit, observables=(" ".join(on_every_qubit(circuit.n_qubits)),))
    fisher = torch.stack([_fisher(parity, n_inputs, seed, k) for k in range(n_weights)])  # (n_weights, d, d)
    return dimension_of(fisher, kappa)


def _fisher(parity: Circuit, n_inputs: int, seed: int, k: int) -> Tensor:
    inputs, weights = draw(parity, n_inputs, seed, "fisher", k)
    own = weights[:1].expand_as(weights)
    slopes = gradients(parity, inputs, own)
    with torch.no_grad():
        value = fused_of(parity).values(inputs, weights[0])[:, 0]
    # E_y [grad log p grad log p^T] of p = (1 +- v) / 2; at v = +-1 the slope is 0 and so is the limit taken
    weight = 1 / (1 - value.square()).clamp(min=1e-9)
    return (slopes * weight[:, None]).T @ slopes / n_inputs


def dimension_of(fisher: Tensor, kappa: float) -> float:
    """Return the effective dimension of Fisher matrices ``(n, d, d)`` drawn over the weights, at scale ``kappa``."""
    d = fisher.shape[-1]
    trace = torch.einsum("kii->", fisher) / len(fisher)
    if not trace > 0:
        return 0.0
    normalised = fisher * (d / trace)
    logs = torch.linalg.slogdet(torch.eye(d, dtype=fisher.dtype) + kappa * normalised).logabsdet / 2
    mean = torch.logsumexp(logs, 0) - math.log(len(logs))
    return (2 * mean / math.log(kappa)).item()


@dataclass(frozen=True)
class Diagnosis:
    """The diagnostics of one circuit.

    Attributes:
        name, n_qubits, n_layers, n_weights: which circuit.
        gradient: variance of the first observable's gradient; None without weights.
        expressibility: divergence from Haar-random states in nats; lower is more expressive.
        entanglement: mean Meyer-Wallach entanglement.
        effective_dimension: of the parity classifier; None without weights.
    """

    name: str
    n_qubits: int
    n_layers: int
    n_weights: int
    gradient: GradientVariance | None
    expressibility: float
    entanglement: float
    effective_dimension: float | None


def diagnose(
    circuit: Circuit,
    *,
    seed: int = 0,
    n_samples: int = 500,
    n_pairs: int = 5000,
    n_fisher: int = 40,
    progress: Callable[[str], None] = lambda text: None,
) -> Diagnosis:
    """Return all diagnostics of one circuit.

    Args:
        circuit: which.
        seed: of all draws.
        n_samples: circuits for gradients and entanglement.
        n_pairs: pairs of states for expressibility.
        n_fisher: weights for the effective dimension, each with as many inputs.
        progress: told what is being computed.
    """
    trainable = circuit.n_weights > 0
    size = f"{circuit.name}, {circuit.n_qubits} qubits, {in_layers(circuit.n_layers)}"
    progress(size)
    return Diagnosis(
        name=circuit.name,
        n_qubits=circuit.n_qubits,
        n_layers=circuit.n_layers,
        n_weights=circuit.n_weights,
        gradient=gradient_variance(circuit, n_samples=n_samples, seed=seed) if trainable else None,
        expressibility=expressibility(circuit, n_pairs=n_pairs, seed=seed),
        entanglement=entangling_capability(circuit, n_samples=n_samples, seed=seed),
        effective_dimension=effective_dimension(circuit, n_weights=n_fisher, n_inputs=n_fisher, seed=seed)
        if trainable
        else None,
    )


def _check_trainable(circuit: Circuit) -> None:
    if not circuit.n_weights:
        raise ValueError(f"circuit {circuit.name} with {circuit.n_layers} layers has no weights to diagnose")


def _check_samples(n: int, fewest: int) -> None:
    if n < fewest:
        raise ValueError(f"{n} samples were asked for; at least {fewest} are needed")
