"""Kernels of a circuit: how alike two samples' states are, from batched states and one matrix product.

A fidelity kernel is ``|<psi(x)|psi(y)>|^2``; ``n`` samples need ``n`` runs of the circuit, not ``n^2 / 2``. A projected
kernel compares the single qubits' density matrices, which keeps it away from zero where the fidelity of many qubits
vanishes. Both are symmetric positive semidefinite with ones on the diagonal, as scikit-learn's ``SVC`` and
``OneClassSVM`` take them with ``kernel="precomputed"``.

A gate behind the last input turns all states alike and changes no fidelity; weights train a fidelity kernel where they
stand between inputs, as in ``data_reuploading``.

Source:
    Schuld and Killoran (2019), Quantum machine learning in feature Hilbert spaces, Phys. Rev. Lett. 122, 040504;
    Havlíček et al. (2019), Nature 567, 209 (fidelity); Huang et al. (2021), Power of data in quantum machine learning,
    Nature Communications 12, 2631, equation 9 (projected).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from hcqsfl.quantum.circuit import Circuit
from hcqsfl.quantum.layer import REAL
from hcqsfl.quantum.states import bloch, states
from hcqsfl.randomness import numpy_generator
from hcqsfl.registry import lookup

KINDS = {
    "fidelity": "squared overlap of the states",
    "projected": "Gaussian of the distance between the single qubits' density matrices",
}
NYSTROEM_ABOVE = 5_000
"""Samples beyond which a full Gram matrix gives way to Nyström's approximation: 200 MB in double precision."""

_AT_ONCE = 2**22
"""Amplitudes that one batch of states holds: 32 MiB in single precision."""


def fidelity(left: Tensor, right: Tensor | None = None) -> Tensor:
    """Return ``(b, c)`` squared overlaps of states ``(b, 2**n)`` and ``(c, 2**n)``, or of the first with themselves."""
    overlap = left @ (left if right is None else right).mH
    return overlap.real.square() + overlap.imag.square()


def projected(left: Tensor, right: Tensor | None = None, gamma: float = 1.0) -> Tensor:
    """Return ``(b, c)``: ``exp(-gamma sum_k |rho_k(x) - rho_k(y)|_F^2)`` over the qubits ``k``.

    Args:
        left: Bloch vectors ``(b, n_qubits, 3)``.
        right: ``(c, n_qubits, 3)``; the first ones again if None.
        gamma: at least 0; the larger, the more local.
    """
    a, b = left.flatten(1), (left if right is None else right).flatten(1)
    # |rho - rho'|_F^2 is half the squared distance of the Bloch vectors
    squared = (a.square().sum(1)[:, None] + b.square().sum(1)[None] - 2 * a @ b.T).clamp(min=0) / 2
    return torch.exp(-gamma * squared)


class QuantumKernel(nn.Module):
    """The kernel of a circuit's states, differentiable to its weights and inputs.

    Args:
        circuit: the feature map; what it measures plays no part.
        kind: a key of ``KINDS``.
        gamma: of the projected kernel.
        weights: the circuit's weights, such as those of a trained layer; drawn from [0, 2 pi) by torch's global
            generator if None.
        dtype: of the states.

    Shape:
        ``(b, n_inputs)`` and ``(c, n_inputs)`` to ``(b, c)``, of the states' real type.

    Raises:
        ValueError: there is no such kind, ``gamma`` is negative, or the weights have another size.
    """

    def __init__(
        self,
        circuit: Circuit,
        kind: str = "fidelity",
        *,
        gamma: float = 1.0,
        weights: Tensor | None = None,
        dtype: torch.dtype = torch.complex64,
    ) -> None:
        super().__init__()
        lookup("quantum kernel", KINDS, kind)
        if not 0 <= gamma < math.inf:
            raise ValueError(f"the gamma of a projected kernel must be at least 0 and finite, not {gamma}")
        if dtype not in REAL:
            raise ValueError(f"the states of a kernel are torch.complex64 or torch.complex128, not {dtype}")
        self.circuit, self.kind, self.gamma, self.dtype = circuit, kind, gamma, dtype
        if weights is None:
            weights = torch.empty(circuit.weight_shape).uniform_(0, 2 * math.pi)
        if weights.numel() != circuit.n_weights:
            raise ValueError(f"circuit {circuit.name} has {circuit.n_weights} weights, not {weights.numel()}")
        self.weights = nn.Parameter(weights.detach().reshape(circuit.weight_shape).to(REAL[dtype]).clone())

    def embed(self, inputs: Tensor) -> Tensor:
        """Return what is compared: states ``(b, 2**n)``, or Bloch vectors ``(b, n_qubits, 3)``."""
        found = states(self.circuit, inputs, self.weights)
        return found if self.kind == "fidelity" else bloch(found)

    def compare(self, left: Tensor, right: Tensor | None = None) -> Tensor:
        """Return the kernel ``(b, c)`` of what ``embed`` returned."""
        return fidelity(left, right) if self.kind == "fidelity" else projected(left, right, self.gamma)

    def forward(self, left: Tensor, right: Tensor | None = None) -> Tensor:
        """Return the kernel of two batches, or of one with itself."""
        return self.compare(self.embed(left), None if right is None else self.embed(right))

    def embed_all(self, x: np.ndarray) -> Tensor:
        """Return ``embed`` of any number of rows, batch by batch and without gradients."""
        at_once = max(1, _AT_ONCE // 2**self.circuit.n_qubits)
        rows = torch.as_tensor(np.asarray(x), dtype=self.weights.dtype, device=self.weights.device)
        with torch.no_grad():
            return torch.cat([self.embed(part) for part in rows.split(at_once)])

    def gram(self, x: np.ndarray, y: np.ndarray | None = None) -> np.ndarray:
        """Return the kernel of rows ``(b, n_inputs)`` and ``(c, n_inputs)`` for scikit-learn, ``(b, c)`` float64."""
        with torch.no_grad():
            left = self.embed_all(x)
            found = self.compare(left, None if y is None else self.embed_all(y))
        return found.cpu().double().numpy()


def alignment(kernel: Tensor, y: Tensor, centred: bool = True) -> Tensor:
    """Return how well a kernel ``(b, b)`` tells classes apart: its cosine with the kernel of the labels, in [-1, 1].

    The labels' kernel is 1 for two samples of one class and -1 / (k - 1) otherwise, so for two classes ``y y^T``.

    Args:
        kernel: Gram matrix.
        y: ``(b,)`` integer classes.
        centred: centre both kernels first, which makes it insensitive to a common offset and to unequal classes.

    Raises:
        ValueError: there is one class only.

    Source:
        Cristianini et al. (2001), On kernel-target alignment; Cortes, Mohri and Rostamizadeh (2012), Algorithms for
        learning kernels based on centered alignment, JMLR 13, 795.
    """
    n_classes = len(torch.unique(y))
    if n_classes < 2:
        raise ValueError("the alignment of a kernel with its labels needs two classes at least; there is 1")
    same = y[:, None] == y[None]
    target = torch.where(same, 1.0, -1 / (n_classes - 1)).to(kernel.dtype)
    if centred:
        kernel, target = _centre(kernel), _centre(target)
    return (kernel * target).sum() / (kernel.norm() * target.norm())


def _centre(k: Tensor) -> Tensor:
    return k - k.mean(0, keepdim=True) - k.mean(1, keepdim=True) + k.mean()


def train_alignment(
    kernel: QuantumKernel,
    x: Tensor,
    y: Tensor,
    *,
    steps: int = 100,
    batch_size: int = 64,
    learning_rate: float = 0.05,
    seed: int = 0,
    progress: Callable[[int, float], None] = lambda step, value: None,
) -> list[float]:
    """Train the feature map's weights by gradient so that its kernel aligns with the labels.

    Args:
        kernel: what to train, in place.
        x: ``(n, n_inputs)`` training rows.
        y: ``(n,)`` integer classes.
        steps: batches to take.
        batch_size: rows of a batch, drawn with about equal numbers of each class.
        learning_rate: of Adam.
        seed: draws the batches.
        progress: told each step and its alignment.

    Returns:
        The centred alignment of each batch before its step.

    Raises:
        ValueError: the circuit has no weights, or there is one class only.

    Source:
        Hubregtsen et al. (2022), Training quantum embedding kernels on near-term quantum computers, Phys. Rev. A 106,
        042431.
    """
    if not kernel.circuit.n_weights:
        raise ValueError(
            f"circuit {kernel.circuit.name} with {kernel.circuit.n_layers} layers has no weights to train; "
            "take one with weights between its inputs, such as data_reuploading"
        )
    generator = numpy_generator(seed, "alignment")
    groups = [np.flatnonzero(y.numpy() == label) for label in np.unique(y.numpy())]
    each = max(1, batch_size // len(groups))
    optimizer = torch.optim.Adam(kernel.parameters(), lr=learning_rate)
    history = []
    for step in range(steps):
        index = np.concatenate([generator.choice(g, min(each, len(g)), replace=False) for g in groups])
        value = alignment(kernel(x[index]), y[index])
        optimizer.zero_grad()
        (-value).backward()
        optimizer.step()
        history.append(value.item())
        progress(step, history[-1])
    return history


@dataclass(frozen=True, eq=False)
class Nystroem:
    """Features whose inner products approximate a kernel: ``k(x, L) k(L, L)^(-1/2)`` for landmark samples ``L``.

    Make one with ``fit``. With every sample a landmark it is exact.

    Attributes:
        kernel: what is approximated.
        landmarks: what the kernel compares samples with.
        root: ``(n_landmarks, rank)``.

    Source:
        Williams and Seeger (2001), Using the Nyström method to speed up kernel machines.
    """

    kernel: QuantumKernel
    landmarks: Tensor
    root: np.ndarray

    @classmethod
    def fit(cls, kernel: QuantumKernel, x: np.ndarray, n_landmarks: int = 500, seed: int = 0) -> "Nystroem":
        """Draw landmarks among the rows ``(n, n_inputs)``.

        Raises:
            ValueError: ``n_landmarks`` is below 1.
        """
        if n_landmarks < 1:
            raise ValueError(f"Nyström's approximation needs at least 1 landmark, not {n_landmarks}")
        chosen = numpy_generator(seed, "landmarks").permutation(len(x))[:n_landmarks]
        landmarks = kernel.embed_all(np.asarray(x)[np.sort(chosen)])
        with torch.no_grad():
            gram = kernel.compare(landmarks).cpu().double().numpy()
        values, vectors = np.linalg.eigh(gram)
        # below this, an eigenvalue is rounding of the states' precision and its root would be noise
        kept = values > values[-1] * len(values) * (1e-7 if kernel.dtype == torch.complex64 else 1e-14)
        return cls(kernel, landmarks, vectors[:, kept] / np.sqrt(values[kept]))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return the features ``(n, rank)`` of rows ``(n, n_inputs)``."""
        with torch.no_grad():
            compared = self.kernel.compare(self.kernel.embed_all(x), self.landmarks)
        features: np.ndarray = compared.cpu().double().numpy() @ self.root
        return features
