"""Cluster gradients or smashed data, and name the clusters by a few known labels."""

import torch

from hcqsfl.privacy.attack import Attack, Budget, Guess, Knowledge
from hcqsfl.privacy.few_labels import class_means, given, lowest_where_unknown, per_window, refuse_shared
from hcqsfl.privacy.observation import Observation
from hcqsfl.privacy.views import rows, standardised


def run(observation: Observation, knowledge: Knowledge, budget: Budget, seed: int) -> Guess:
    """Run k-means from the classes' known rows as seeds; a class's score is minus the distance to its centre.

    ``Knowledge.extra["view"]`` says what is clustered: directions of ``gradient_features`` unless given, or another of
    ``hcqsfl.privacy.views.VIEWS``.

    Whoever can link the releases of one window (``Knowledge.releases``) averages their gradients first.

    Raises:
        NotApplicable: labels are shared, or what is to be clustered does not cross.
        ValueError: the labelled rows are of fewer than two classes.
    """
    refuse_shared(observation)
    view = knowledge.extra.get("view", "gradient_features")
    if view.startswith("gradient"):
        x = torch.nn.functional.normalize(per_window(observation, view, knowledge.releases), dim=1)
    else:
        x = standardised(rows(observation, view))
    places, labels = given(knowledge)
    centres = class_means(x, places, labels, knowledge.n_outputs)
    classes = labels.unique()  # a class without a labelled row gets no cluster
    while budget.spend():
        nearest = classes[torch.cdist(x, centres[classes]).argmin(dim=1)]
        nearest[places] = labels  # what is known stays where it belongs
        moved = torch.stack([x[nearest == c].mean(dim=0) for c in classes])
        if torch.equal(moved, centres[classes]):
            break
        centres[classes] = moved
    scores = torch.full((len(x), knowledge.n_outputs), float("nan"))
    scores[:, classes] = -torch.cdist(x, centres[classes])
    return Guess(labels=lowest_where_unknown(scores))


ATTACK = Attack(
    "A9",
    "labels",
    ("T1", "T2", "T5", "T6"),
    run,
    "Liu et al. (2024), Similarity-based label inference attack against training and inference of split learning, "
    "section 4; Basu et al. (2002), Semi-supervised clustering by seeding, figure 2 (constrained k-means)",
    adaptive=True,
)
