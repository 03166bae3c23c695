"""Tell people apart by dynamic time warping between slices of windows: nothing is trained."""

import numpy as np
import torch

from hcqsfl.privacy.attack import Attack, Budget, Guess, Knowledge
from hcqsfl.privacy.enrolment import enrolled
from hcqsfl.privacy.observation import NotApplicable, Observation

SLICES, BAND = 4, 0.1


def run(observation: Observation, knowledge: Knowledge, budget: Budget, seed: int) -> Guess:
    """Score a person by minus the distance from each slice of a window to the nearest slice of theirs.

    Windows are ``asked_x``: raw for those enrolled, and for the others raw (the ceiling) or reconstructed. Each channel
    is scaled by the enrolled windows; a distance is the mean over channels and slices.

    Raises:
        NotApplicable: there are no windows to compare.
        ValueError: fewer than two people are enrolled, or the package dtaidistance is absent.

    Source: Schreieder & Schmid (2023), Slice it up: unmasking user identities in smartwatch health data, section 4;
    Sakoe & Chiba (1978) for the band.
    """
    try:
        from dtaidistance import dtw
    except ImportError:
        raise ValueError("slicing DTW needs the package dtaidistance: pip install hcqsfl[privacy]") from None
    if observation.asked_x is None:
        raise NotApplicable(f"{observation.threat} was given no windows to compare; reconstruct some first")
    x = observation.asked_x.double().numpy()
    places, people, candidates = enrolled(knowledge)
    x = (x - x[places].mean(axis=(0, 2), keepdims=True)) / (x[places].std(axis=(0, 2), keepdims=True) + 1e-12)
    n_times = x.shape[2]
    slices = min(SLICES, n_times)
    length = n_times // slices
    cut = x[:, :, : slices * length].reshape(len(x), x.shape[1], slices, length)
    asked = np.setdiff1d(np.arange(len(x)), places)
    band = max(1, round(BAND * length))
    total = np.zeros((len(x), len(candidates)))
    for c in range(x.shape[1]):
        budget.spend()
        enrolled_slices = cut[places, c].reshape(-1, length)
        asked_slices = cut[asked, c].reshape(-1, length)
        both = np.ascontiguousarray(np.concatenate([asked_slices, enrolled_slices]))
        n = len(asked_slices)
        distance = dtw.distance_matrix_fast(both, window=band, block=((0, n), (n, len(both))), parallel=False)
        distance = distance[:n, n:].reshape(len(asked), slices, len(places), slices)
        for i in range(len(candidates)):
            nearest = distance[:, :, people == i].min(axis=(2, 3))  # (n_asked, slices)
            total[asked, i] += nearest.mean(axis=1) / x.shape[1]
    total[places, people] = -1.0  # an enrolled window is its own nearest
    return Guess(identity=torch.from_numpy(-total), candidates=candidates)


ATTACK = Attack(
    "A6",
    "identity",
    ("T1", "T2", "T4", "T5"),
    run,
    "Schreieder & Schmid (2023), Slice it up: unmasking user identities in smartwatch health data, section 4",
)
