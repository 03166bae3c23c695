"""Tell rare classes by how long their gradients are."""

import torch

from hcqsfl.privacy.attack import Attack, Budget, Guess, Knowledge
from hcqsfl.privacy.few_labels import class_means, given, lowest_where_unknown, per_window, refuse_shared
from hcqsfl.privacy.observation import Observation


def run(observation: Observation, knowledge: Knowledge, budget: Budget, seed: int) -> Guess:
    """Score each class by the norm of the gradient at the features.

    With a few labels known, a class scores minus the distance of the norm's logarithm to the mean of its known ones.
    With none, the norm counts for the classes that are rarer than even among the auxiliary windows, and against the
    others: a network that has learnt that a class is rare errs more on it, and a class weight lengthens its gradients
    besides. Where classes are even, that sign is a guess, and the area may lie as far below 0.5 as above.

    Whoever can link the releases of one window (``Knowledge.releases``) averages their gradients first.

    Raises:
        NotApplicable: labels are shared, or no gradient of the features crosses.
        ValueError: labels are known, but of one class alone.
    """
    refuse_shared(observation)
    budget.spend()
    norm = per_window(observation, "gradient_features", knowledge.releases).norm(dim=1)
    if knowledge.labelled:
        places, labels = given(knowledge)
        length = norm.clamp_min(1e-12).log()[:, None]
        distance = (length - class_means(length, places, labels, knowledge.n_outputs).t()).abs()
        return Guess(labels=lowest_where_unknown(-distance))
    share = torch.bincount(knowledge.y, minlength=knowledge.n_outputs) / max(len(knowledge.y), 1)
    sign = torch.where(share < 1 / knowledge.n_outputs, 1.0, -1.0)
    return Guess(labels=norm[:, None] * sign)


ATTACK = Attack(
    "A9",
    "labels",
    ("T1", "T2", "T5", "T6"),
    run,
    "Li et al. (2022), Label leakage and protection in two-party split learning, section 3.1",
    adaptive=True,
)
