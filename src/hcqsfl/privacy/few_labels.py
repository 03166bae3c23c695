"""What label attacks have in common: where they apply, and the few labels they begin with."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from hcqsfl.privacy.attack import Knowledge
from hcqsfl.privacy.observation import NotApplicable, Observation, Target


def refuse_shared(observation: Observation) -> None:
    """Refuse where labels cross the cut anyway.

    Raises:
        NotApplicable: they do.
    """
    if observation.label_sharing:
        raise NotApplicable(
            "clients share their labels with the server here: 100 % of them leak by design, so that there is nothing "
            "to infer (federation.label_sharing = false keeps them)"
        )


def per_window(observation: Observation, what: str, releases: Mapping[int, Sequence[Target]] | None = None) -> Tensor:
    """Return gradients ``(n_targets, width)`` of each window's own loss: those of a batch's mean, times its size.

    Noise that is drawn anew for each release of a window is averaged away over the ``releases`` that could be linked.

    Raises:
        NotApplicable: this gradient did not cross, or this adversary does not see it.
    """

    def scaled(targets: Sequence[Target]) -> Tensor:
        sizes = [len(observation.exchanges[target.exchange]) for target in targets]
        return replace(observation, targets=targets).stacked(what) * torch.tensor(sizes, dtype=torch.float32)[:, None]

    found = scaled(observation.targets)
    for place, others in (releases or {}).items():
        if others:
            found[place] = torch.cat([found[place][None], scaled(others)]).mean(dim=0)
    return found


def given(knowledge: Knowledge) -> tuple[Tensor, Tensor]:
    """Return places and labels of the few labelled targets.

    Raises:
        ValueError: they are of fewer than two classes.
    """
    places = torch.tensor(sorted(knowledge.labelled), dtype=torch.long)
    labels = torch.tensor([knowledge.labelled[int(i)] for i in places], dtype=torch.long)
    if len(labels.unique()) < 2:
        raise ValueError(
            f"this attack needs labelled windows of at least two classes; those given are of {len(labels.unique())}"
        )
    return places, labels


def renamed(scores: Tensor, labelled: Mapping[int, int]) -> Tensor:
    """Return scores of classes ``(n, n_outputs)`` whose columns are put in the order that fits a few labels best.

    A simulated half finds classes, but may call them by each other's names: nothing that crosses tells which is which.

    Args:
        scores: log-probabilities, or what grows with them.
        labelled: row to its label.
    """
    fit = torch.zeros(scores.shape[1], scores.shape[1], dtype=scores.dtype)  # (label, column)
    for place, label in labelled.items():
        fit[label] += scores[place]
    _, columns = linear_sum_assignment(fit.numpy(), maximize=True)
    return scores[:, torch.from_numpy(columns)]


def class_means(rows: Tensor, places: Tensor, labels: Tensor, n_outputs: int) -> Tensor:
    """Return the mean ``(n_outputs, width)`` of the labelled rows of each class; NaN for a class without any."""
    return torch.stack([rows[places[labels == c]].mean(dim=0) for c in range(n_outputs)])


def lowest_where_unknown(scores: Tensor) -> Tensor:
    """Return scores ``(n, n_outputs)`` in which a class without a labelled row, a NaN, is below all others."""
    known = scores.isfinite()
    return torch.where(known, scores, scores[known].min() - 1)
