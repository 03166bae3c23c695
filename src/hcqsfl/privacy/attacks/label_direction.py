"""Tell classes by where their gradients point, from a few known ones."""

import torch

from hcqsfl.privacy.attack import Attack, Budget, Guess, Knowledge
from hcqsfl.privacy.few_labels import given, lowest_where_unknown, per_window, refuse_shared
from hcqsfl.privacy.observation import Observation


def run(observation: Observation, knowledge: Knowledge, budget: Budget, seed: int) -> Guess:
    """Score each class by the mean cosine of the gradient at the features with the class's known gradients.

    Whoever can link the releases of one window (``Knowledge.releases``) averages their gradients first.

    Raises:
        NotApplicable: labels are shared, or no gradient of the features crosses.
        ValueError: the known gradients are of fewer than two classes.
    """
    refuse_shared(observation)
    budget.spend()
    unit = torch.nn.functional.normalize(per_window(observation, "gradient_features", knowledge.releases), dim=1)
    places, labels = given(knowledge)
    cosine = unit @ unit[places].t()  # (n, n_labelled)
    scores = torch.stack([cosine[:, labels == c].mean(dim=1) for c in range(knowledge.n_outputs)], dim=1)
    return Guess(labels=lowest_where_unknown(scores))


ATTACK = Attack(
    "A9",
    "labels",
    ("T1", "T2", "T5", "T6"),
    run,
    "Li et al. (2022), Label leakage and protection in two-party split learning, section 3.2",
    adaptive=True,
)
