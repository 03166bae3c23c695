"""How well people are told apart."""

import numpy as np


def top_k(scores: np.ndarray, truth: np.ndarray, k: int) -> np.ndarray:
    """Return 1 where the true person is among the ``k`` highest scores of a row, else 0; ties count against the attack.

    Args:
        scores: ``(n, n_candidates)``.
        truth: ``(n,)`` column of the true person.
        k: how many may be named.
    """
    own = np.take_along_axis(scores, np.asarray(truth)[:, None], axis=1)
    others_ahead = (scores >= own).sum(axis=1) - 1
    hits: np.ndarray = (others_ahead < k).astype(np.float64)
    return hits


def equal_error_rate(genuine: np.ndarray, impostor: np.ndarray) -> float:
    """Return the rate at which as many impostors are accepted as genuine ones are rejected.

    Args:
        genuine: scores of rows that ought to be accepted.
        impostor: scores of rows that ought to be rejected.

    Returns:
        The smallest, over thresholds, of the larger of the two rates; NaN where a side has no rows.

    Source: ISO/IEC 19795-1 (2021), Biometric performance testing and reporting, for the two rates.
    """
    genuine, impostor = np.sort(genuine), np.sort(impostor)
    if not len(genuine) or not len(impostor):
        return float("nan")
    thresholds = np.unique(np.concatenate([genuine, impostor, [np.inf]]))
    rejected = np.searchsorted(genuine, thresholds, side="left") / len(genuine)
    accepted = 1 - np.searchsorted(impostor, thresholds, side="left") / len(impostor)
    return float(np.maximum(rejected, accepted).min())


def open_set_eer(scores: np.ndarray, enrolled: np.ndarray) -> float:
    """Return the equal error rate of telling people who are enrolled from people who are not, by the best score.

    Args:
        scores: ``(n, n_candidates)`` of the enrolled people.
        enrolled: ``(n,)`` bool, whether the row's person is one of them.

    Source: Phillips, Grother & Micheals (2011), Evaluation methods in face recognition, section 3 (open-set task),
    without its demand that the person be named rightly.
    """
    best = np.asarray(scores).max(axis=1)
    return equal_error_rate(best[enrolled], best[~enrolled])
