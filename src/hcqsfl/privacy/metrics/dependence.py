"""How much smashed data depend on the windows they were made of.

Dependence says that something could leak, never that nothing does, and it does not order defences: smashed data of
four numbers may depend on the windows more than those of a thousand, and yet show far less of them. So neither measure
here is a measure of privacy; attacks are.
"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist

from hcqsfl.randomness import numpy_generator

MAX_DIMENSIONS = 8
"""Nearest neighbours say nothing about mutual information in more."""


@dataclass(frozen=True)
class Dependence:
    """A distance correlation, and what it would be by chance.

    Attributes:
        value: squared, unbiased; around 0, and so sometimes below, where there is no dependence.
        p: share of permutations with at least as much, the data themselves counted as one.
        floor: the 95 % quantile of the permutations: what independent data of this size reach.
        n: rows.
    """

    value: float
    p: float
    floor: float
    n: int


def distance_correlation(x: np.ndarray, z: np.ndarray, seed: int, n_permutations: int = 199) -> Dependence:
    """Return the unbiased squared distance correlation of two sets of rows, with its permutation test.

    The usual, biased estimator reads 0.97 on 32 independent rows of a thousand numbers; this one reads 0.

    Args:
        x: ``(n, ...)`` windows.
        z: ``(n, ...)`` smashed data.
        seed: of the permutations.
        n_permutations: how many; 0 for no test.

    Raises:
        ValueError: there are fewer than 4 rows, or not as many of both.

    Source: Szekely & Rizzo (2014), Partial distance correlation with methods for dissimilarities, definition 2 and
    section 4; Vepakomma et al. (2020), NoPeek, for its use at the cut.
    """
    if len(x) != len(z) or len(x) < 4:
        raise ValueError(f"{len(x)} windows and {len(z)} rows of smashed data were given; 4 or more of each are needed")
    a, b = (_u_centred(np.asarray(each, dtype=np.float64).reshape(len(each), -1)) for each in (x, z))
    size = np.sqrt((a * a).sum() * (b * b).sum())
    if not size:
        return Dependence(0.0, 1.0, 0.0, len(x))
    value = float((a * b).sum() / size)
    rng = numpy_generator(seed, "distance correlation")
    drawn = []
    for _ in range(n_permutations):
        order = rng.permutation(len(x))
        drawn.append(float((a * b[np.ix_(order, order)]).sum() / size))
    by_chance = np.array(drawn)
    p = (1 + int((by_chance >= value).sum())) / (1 + n_permutations)
    return Dependence(value, p, float(np.quantile(by_chance, 0.95)) if drawn else 0.0, len(x))


def _u_centred(rows: np.ndarray) -> np.ndarray:
    """Return the U-centred matrix of distances ``(n, n)`` (dcor has it too, but takes seconds to be imported)."""
    d = cdist(rows, rows)
    n = len(d)
    sums = d.sum(axis=0)
    centred: np.ndarray = d - (sums[:, None] + sums[None]) / (n - 2) + sums.sum() / ((n - 1) * (n - 2))
    np.fill_diagonal(centred, 0.0)
    return centred


def mutual_information(x: np.ndarray, z: np.ndarray, k: int = 3) -> float:
    """Estimate the mutual information of one number a row and a few others, in nats, by nearest neighbours.

    By the chain rule, ``I(x; z1 .. zd) = sum_i I(x; zi | z1 .. z(i-1))``. It saturates near ``log n``, and a low value
    is no evidence of safety.

    Args:
        x: ``(n,)``, such as a heart rate, or one sample of a window.
        z: ``(n, d)``, with d up to 8.
        k: neighbours.

    Raises:
        ValueError: there are more than 8 dimensions, or too few rows.
        ImportError: ennemi is not installed; the message says how to.

    Source: Kraskov et al. (2004), Estimating mutual information, equation 8; Frenzel & Pompe (2007), Partial mutual
    information for coupling analysis, for the conditional terms.
    """
    z = np.asarray(z, dtype=np.float64).reshape(len(z), -1)
    if z.shape[1] > MAX_DIMENSIONS:
        raise ValueError(
            f"mutual information by nearest neighbours means nothing in {z.shape[1]} dimensions; at most "
            f"{MAX_DIMENSIONS} are taken: choose a few, or attack instead"
        )
    if len(x) != len(z) or len(x) <= 2 * k:
        raise ValueError(f"{len(x)} and {len(z)} rows were given; as many are needed, more than {2 * k}")
    try:
        import ennemi
    except ImportError as error:
        raise ImportError("mutual information needs ennemi: pip install 'hcqsfl[privacy]'") from error
    x = np.asarray(x, dtype=np.float64)
    total = 0.0
    for i in range(z.shape[1]):
        cond = z[:, :i] if i else None
        total += float(np.asarray(ennemi.estimate_mi(x, z[:, i], k=k, cond=cond, max_threads=1))[0, 0])
    return max(total, 0.0)
