"""A guard that compares a turn with the turns before it, by the spectrum of what it changed and by its angle.

Source: Rieger et al. (2025), SafeSplit: a novel defense against client-side backdoor attacks in split learning (NDSS),
for judging a turn by two scores, a static one in the frequency domain (cosine transform) and a dynamic one of
rotation, and for going back with the whole model where it is not benign. How both are measured, where their limits lie
and that only the turn just taken is judged, is set here.
"""

import math
from collections.abc import Mapping

import numpy as np
import torch
from scipy.fft import dctn
from torch import Tensor

from hcqsfl.federated.update import State


class TurnGuard:
    """Take back a turn whose change is unlike those of the majority of the last turns, or turns against the last one.

    Turns that were taken back are remembered too, so that the majority of the clients decides, and a training that
    comes to move otherwise is not held up for good.

    Args:
        distance: a turn is odd if its mean distance to the nearer half of the remembered turns is more than so many
            times the median of theirs.
        angle: a turn is odd if the change turns by more than so many degrees from that of the last turn that stayed.
        share: of the frequencies along each axis of each tensor that are compared, the lowest ones, in (0, 1].
        memory: how many turns are remembered.
        warm_up: turns before the guard begins to judge.

    Raises:
        ValueError: an option is out of range.
    """

    leaves_out = True

    def __init__(
        self, distance: float = 2.0, angle: float = 110.0, share: float = 0.5, memory: int = 20, warm_up: int = 4
    ) -> None:
        if not distance > 1 or not 0 < angle <= 180 or not 0 < share <= 1:
            raise ValueError(
                f"a turn guard was given a distance of {distance:g} medians, an angle of {angle:g} degrees and a share "
                f"of {share:g}; need a distance above 1, an angle in (0, 180] and a share in (0, 1]"
            )
        if not 3 <= warm_up <= memory:
            raise ValueError(
                f"a turn guard warms up over {warm_up} turns and remembers {memory}; need 3 <= warm-up <= memory"
            )
        self.distance, self.angle, self.low, self.memory, self.warm_up = distance, angle, share, memory, warm_up
        self.spectra = torch.empty(0, 0, dtype=torch.float64)
        self.last = torch.empty(0, dtype=torch.float64)

    def share(self, client: str, before: State, after: State) -> float:
        """Return 1 if the turn stays, 0 if it is taken back."""
        changes = {name: (after[name].double() - base.double()).cpu() for name, base in before.items()}
        change = torch.cat([each.reshape(-1) for each in changes.values()])
        if not change.isfinite().all():
            return 0.0
        if not change.any():  # the turn failed, or had no step
            return 1.0
        spectrum = torch.cat([low_frequencies(each, self.low) for each in changes.values()])
        judged = len(self.spectra) >= self.warm_up
        held = self.spectra if len(self.spectra) else spectrum.new_empty(0, len(spectrum))
        self.spectra = torch.cat([held, spectrum[None]])[-self.memory :]
        if judged and (oddness(self.spectra) > self.distance or angle(self.last, change) > self.angle):
            return 0.0
        self.last = change
        return 1.0

    def tensors(self) -> dict[str, Tensor]:
        """Return the turns it remembers."""
        return {"spectra": self.spectra, "last": self.last}

    def load_tensors(self, held: Mapping[str, Tensor]) -> None:
        """Go back to where ``tensors`` was taken."""
        self.spectra, self.last = held["spectra"], held["last"]


def low_frequencies(change: Tensor, share: float) -> Tensor:
    """Return the lowest ``share`` of the frequencies along each axis of a tensor, flat; a tensor of three axes is
    taken as its first against all others.

    With a share of 1 this keeps all distances, since the transform is orthonormal.
    """
    values = change.reshape(len(change), -1) if change.dim() > 1 else change.reshape(1, -1)
    found = dctn(values.numpy(), norm="ortho")
    rows, columns = (math.ceil(share * n) for n in found.shape)
    return torch.from_numpy(np.ascontiguousarray(found[:rows, :columns])).reshape(-1)


def oddness(spectra: Tensor) -> float:
    """Return how far the last row of ``(n, n_values)`` is from the nearer half of the others, in medians of all."""
    distances = torch.cdist(spectra, spectra, compute_mode="donot_use_mm_for_euclid_dist")
    half = len(spectra) // 2 + 1
    # the nearest of all is the row itself, at zero
    scores = distances.sort(dim=1).values[:, 1 : half + 1].mean(dim=1)
    usual = scores.quantile(0.5).item()
    return scores[-1].item() / usual if usual > 0 else 1.0


def angle(one: Tensor, other: Tensor) -> float:
    """Return the angle between two flat changes in degrees; 0 if one of them is nothing."""
    lengths = float(one.norm() * other.norm()) if len(one) else 0.0
    return math.degrees(math.acos(max(-1.0, min(1.0, float(one @ other) / lengths)))) if lengths > 0 else 0.0
