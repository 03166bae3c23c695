"""Aggregation in which the fed server learns sums of groups of clients, and no client's update.

Two schemes. With pairwise masks each client adds numbers, modulo 2^64, that cancel in the sum over its group: the
server learns that sum, exact in fixed point. With CKKS clients encrypt under a key that the server does not have: it
adds ciphertexts and learns nothing at all.

Source: Bonawitz et al. (2017), Practical secure aggregation for privacy-preserving machine learning, protocol 1, whose
key agreement and secret sharing are here a seed that each pair has in common and that survivors reveal; Cheon et al.
(2017), Homomorphic encryption for arithmetic of approximate numbers, for CKKS.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from hcqsfl.federated.aggregation.flat import Layout, in_order
from hcqsfl.federated.update import Aggregator, State, StatefulAggregator, Update, serialise
from hcqsfl.randomness import derive, numpy_generator

SERVER_SEES = "group"
"""How the name of a group's mean begins, where a client's would stand."""


class Scheme(Protocol):
    """Adds vectors of several clients such that nobody learns one of them.

    Attributes:
        server_learns_sum: whether the sum is the server's to see.
    """

    server_learns_sum: bool

    def total(self, vectors: Mapping[str, np.ndarray], roster: Sequence[str], version: int) -> np.ndarray:
        """Return the sum of ``vectors``, client to ``(n_values,)`` float64.

        Args:
            vectors: of those who handed one in.
            roster: all who agreed to take part; those who are missing dropped out after that.
            version: of the global state, which the masks belong to.
        """
        ...

    def size(self, n_values: int) -> int:
        """Return the bytes in which one client's vector travels."""
        ...


class PairwiseMasks:
    """Masks that cancel: exact sums in fixed point, modulo 2^64.

    Args:
        seed: root seed; each pair derives its own from it, which stands for their key agreement.
        fraction_bits: bits behind the point.
        threshold: share of the roster that must be left for the masks of those who dropped out to be recovered.

    Raises:
        ValueError: an option is out of range.
    """

    server_learns_sum = True

    def __init__(self, seed: int = 0, fraction_bits: int = 32, threshold: float = 0.5) -> None:
        if not 8 <= fraction_bits <= 48 or not 0 < threshold <= 1:
            raise ValueError(
                f"masks have {fraction_bits} bits behind the point and a threshold of {threshold}; need 8 to 48, and "
                "above 0 to 1"
            )
        self.seed, self.fraction_bits, self.threshold = seed, fraction_bits, threshold

    def size(self, n_values: int) -> int:
        """Return eight bytes a number."""
        return 8 * n_values

    def fixed(self, values: np.ndarray, n_clients: int) -> np.ndarray:
        """Return numbers in fixed point, as ``uint64``.

        Raises:
            ValueError: a number is so large that a sum over the clients might overflow.
        """
        scaled = np.rint(values * 2.0**self.fraction_bits)
        most = 2.0**62 / n_clients
        if not np.abs(scaled).max(initial=0) < most:
            raise ValueError(
                f"an update of {np.abs(values).max():.3g} (times its examples) does not fit {self.fraction_bits} bits "
                f"behind the point with {n_clients} clients; lower fraction_bits"
            )
        return scaled.astype(np.int64).view(np.uint64)

    def mask(self, first: str, second: str, version: int, n_values: int) -> np.ndarray:
        """Return what ``first`` adds and ``second`` subtracts, ``(n_values,)`` uint64."""
        generator = np.random.Generator(np.random.Philox(derive(self.seed, "mask", first, second, version)))
        return generator.integers(0, 2**64, n_values, dtype=np.uint64)

    def masked(self, client: str, values: np.ndarray, roster: Sequence[str], version: int) -> np.ndarray:
        """Return what ``client`` sends: its numbers in fixed point under a mask with each other on the roster."""
        sent = self.fixed(values, len(roster))
        for other in roster:
            if client < other:
                sent = sent + self.mask(client, other, version, len(values))
            elif other < client:
                sent = sent - self.mask(other, client, version, len(values))
        return sent

    def total(self, vectors: Mapping[str, np.ndarray], roster: Sequence[str], version: int) -> np.ndarray:
        """Return the sum; masks with those who dropped out are taken off by the seeds that survivors reveal.

        Raises:
            ValueError: too few are left.
        """
        if len(vectors) < max(2, math.ceil(self.threshold * len(roster))):
            raise ValueError(
                f"{len(vectors)} of the {len(roster)} clients of a group are left; their masks cannot be taken off "
                f"with fewer than 2, or less than {self.threshold:.0%} of them"
            )
        total = sum(
            (self.masked(client, values, roster, version) for client, values in vectors.items()),
            start=np.zeros((), np.uint64),
        )
        n_values = len(next(iter(vectors.values())))
        for left in vectors:
            for dropped in set(roster) - set(vectors):
                low, high = sorted((left, dropped))
                mask = self.mask(low, high, version, n_values)
                total = total - mask if left == low else total + mask
        return np.asarray(total).view(np.int64).astype(np.float64) / 2.0**self.fraction_bits


class CKKS:
    """Sums of ciphertexts; the key is the clients'. The numbers that come out are off by about 1e-7.

    The encryption draws its own randomness, so that two runs are alike to that error and not bit for bit.

    Args:
        seed: not used.
        degree: of the polynomials; half as many numbers fit one ciphertext.

    Raises:
        ValueError: TenSEAL is not installed.
    """

    server_learns_sum = False

    def __init__(self, seed: int = 0, degree: int = 8192) -> None:
        try:
            import tenseal
        except ImportError:
            raise ValueError(
                "encrypted aggregation needs tenseal, which is not installed: pip install 'hcqsfl[he]'"
            ) from None
        self._tenseal: Any = tenseal
        self._context = tenseal.context(tenseal.SCHEME_TYPE.CKKS, degree, coeff_mod_bit_sizes=[60, 40, 60])
        self._context.global_scale = 2**40
        self.slots = degree // 2
        self._one = len(self._encrypt(np.zeros(1))[0])

    def _encrypt(self, values: np.ndarray) -> list[bytes]:
        chunks = np.split(values, range(self.slots, len(values), self.slots))
        return [self._tenseal.ckks_vector(self._context, chunk.tolist()).serialize() for chunk in chunks]

    def size(self, n_values: int) -> int:
        """Return the bytes of the ciphertexts."""
        return self._one * math.ceil(n_values / self.slots)

    def total(self, vectors: Mapping[str, np.ndarray], roster: Sequence[str], version: int) -> np.ndarray:
        """Return the sum, added under encryption and decrypted by the clients."""
        read = self._tenseal.ckks_vector_from
        added: list[Any] = []
        for values in vectors.values():
            ciphertexts = [read(self._context, data) for data in self._encrypt(values)]
            added = [a + b for a, b in zip(added, ciphertexts, strict=True)] if added else ciphertexts
        return np.concatenate([ciphertext.decrypt() for ciphertext in added])


SCHEMES: dict[str, Any] = {"masks": PairwiseMasks, "ckks": CKKS}
"""Name to scheme."""


class SecureAggregator:
    """Groups clients, sums each group's updates by a scheme, and gives the groups' means to a rule.

    With one group the rule sees the mean of all. With several, a robust rule can still tell an odd group; it then has
    as many clients as there are groups.

    Args:
        inner: the rule.
        scheme: adds vectors.
        n_groups: groups; each must have two clients or more.
        seed: root seed of the draw into groups, which also depends on the version.

    Raises:
        ValueError: there is no group, or the scheme hides from the server what the rule must see.
    """

    def __init__(self, inner: Aggregator, scheme: Scheme, n_groups: int = 1, seed: int = 0) -> None:
        if n_groups < 1:
            raise ValueError(f"secure aggregation in {n_groups} groups was asked for; at least 1 is needed")
        if not scheme.server_learns_sum and n_groups > 1:
            raise ValueError(
                "under encryption the server sees no group's mean that a robust rule could compare: take "
                "secure_aggregation = 'masks', or one group"
            )
        self.inner, self.scheme, self.n_groups, self.seed = inner, scheme, n_groups, seed
        self.roster: tuple[str, ...] = ()
        self._shown: tuple[Update, ...] = ()

    def expect(self, roster: Sequence[str]) -> None:
        """Take note of who agreed to take part in the round."""
        self.roster = tuple(roster)

    def __call__(self, state: State, updates: Sequence[Update]) -> State:
        """Return the next global state.

        Raises:
            ValueError: a group is too small, or the inner rule's precondition does not hold for the groups.
        """
        self._shown = ()
        ordered = in_order("secure aggregation", state, updates)
        if not ordered:
            return state
        version = max(update.base_version for update in ordered)
        roster = sorted(self.roster or (update.client for update in ordered))
        if len(roster) < 2 * self.n_groups:
            raise ValueError(
                f"secure aggregation of {len(roster)} clients in {self.n_groups} groups: the sum of fewer than 2 "
                "clients is a client's update"
            )
        dealt = numpy_generator(self.seed, "secure groups", version).permutation(len(roster))
        means = []
        for i in range(self.n_groups):
            names = sorted(roster[j] for j in dealt[i :: self.n_groups])
            members = [update for update in ordered if update.client in names]
            means.append(self._mean(f"{SERVER_SEES}-{i + 1}", state, members, names, version))
        self._shown = tuple(means) if self.scheme.server_learns_sum else ()
        return self.inner(state, means)

    def _mean(self, name: str, state: State, members: Sequence[Update], roster: Sequence[str], version: int) -> Update:
        layout = Layout.of(state)
        base = layout.flatten(state)
        vectors = {
            update.client: np.append(
                update.num_examples * (layout.flatten(update.state) - base).numpy(), float(update.num_examples)
            )
            for update in members
        }
        total = self.scheme.total(vectors, roster, version)
        examples = max(1, round(total[-1]))
        mean = layout.unflatten(base + torch.from_numpy(total[:-1]) / examples)
        kept = {key: tensor for key, tensor in state.items() if key not in mean}
        return Update(name, kept | {k: t.to(state[k].dtype) for k, t in mean.items()}, version, examples)

    def shown(self, updates: Sequence[Update]) -> Sequence[Update]:
        """Return what the server saw of the round's updates: the groups' means, or nothing."""
        return self._shown

    def wire_bytes(self, state: State) -> tuple[int, int]:
        """Return the bytes that a client sends and receives for one update."""
        n_values = sum(t.numel() for t in state.values() if t.is_floating_point()) + 1
        sent = self.scheme.size(n_values)
        return sent, (len(serialise(state)) if self.scheme.server_learns_sum else sent)

    def tensors(self) -> dict[str, Tensor]:
        """Return what the inner rule remembers."""
        return self.inner.tensors() if isinstance(self.inner, StatefulAggregator) else {}

    def load_tensors(self, held: Mapping[str, Tensor]) -> None:
        """Go back to where ``tensors`` was taken."""
        if isinstance(self.inner, StatefulAggregator):
            self.inner.load_tensors(held)
