"""Find the labels, and a head, that explain the gradients that came back."""

import torch
from torch import nn

from hcqsfl.privacy.attack import Attack, Budget, Guess, Knowledge
from hcqsfl.privacy.few_labels import class_means, given, per_window, refuse_shared
from hcqsfl.privacy.observation import Observation
from hcqsfl.privacy.plateau import Plateau
from hcqsfl.randomness import torch_seeded

START, PRIOR, CONFIDENT = 3.0, 0.5, 0.05


def run(observation: Observation, knowledge: Knowledge, budget: Budget, seed: int) -> Guess:
    """Optimise a head of the known shape, and a soft label for each row, until they give the observed gradients.

    The loss is the squared error of the gradient at the features, relative to its mean square, plus the divergence of
    the mean label from the auxiliary windows' class shares, plus the labels' mean entropy. The few known labels are
    held fixed, and the others begin where their gradients point (cosine with the known gradients of each class): from
    anywhere else the search often ends with two classes exchanged.

    Raises:
        NotApplicable: labels are shared, or features and their gradients do not both cross.
        ValueError: the labelled rows are of fewer than two classes.

    Source: Kariyappa & Qureshi (2023), ExPLoit: extracting private labels in split learning, section 4; Erdogan et al.
    (2022), UnSplit, section 3.3, for gradient matching through a clone of the head.
    """
    refuse_shared(observation)
    features = observation.stacked("features").detach()
    target = per_window(observation, "gradient_features")
    places, labels = given(knowledge)
    share = torch.bincount(knowledge.y, minlength=knowledge.n_outputs).float() + 1
    share = share / share.sum()
    weights = knowledge.training.get("class_weights")
    with torch_seeded(seed, "label matching"):
        head = knowledge.make_head()
    unit = nn.functional.normalize(target, dim=1)
    toward = unit @ nn.functional.normalize(class_means(unit, places, labels, knowledge.n_outputs), dim=1).t()
    logits = nn.Parameter(START * toward.nan_to_num(-1.0))  # away from a class without a labelled row
    fixed = nn.functional.one_hot(labels, knowledge.n_outputs).float()
    optimizer = torch.optim.Adam([{"params": head.parameters(), "lr": 1e-2}, {"params": [logits], "lr": 5e-2}])
    scale = target.pow(2).mean().clamp_min(1e-20)
    plateau = Plateau()
    while not plateau.reached and budget.spend():
        soft = logits.softmax(dim=1).index_copy(0, places, fixed)
        inner = features.requires_grad_()
        # a mean over a batch divides by the batch's summed weights; in the mean over batches that is a factor of one
        weighted = soft if weights is None else soft * weights
        loss = -(weighted * head(inner).log_softmax(dim=1)).sum()
        (made,) = torch.autograd.grad(loss, inner, create_graph=True)
        fit = ((made - target) ** 2).mean() / scale
        prior = (share * (share.log() - soft.mean(dim=0).clamp_min(1e-9).log())).sum()
        entropy = -(soft * soft.clamp_min(1e-9).log()).sum(dim=1).mean()
        optimizer.zero_grad()
        whole = fit + PRIOR * prior + CONFIDENT * entropy
        whole.backward()
        optimizer.step()
        plateau(float(whole.detach()))
    return Guess(
        labels=logits.detach().softmax(dim=1), facts={"gradient_error": float(fit.detach()), "plateau": plateau.reached}
    )


ATTACK = Attack(
    "A9",
    "labels",
    ("T1", "T2", "T5", "T6"),
    run,
    "Kariyappa & Qureshi (2023), ExPLoit: extracting private labels in split learning, section 4; Erdogan et al. "
    "(2022), UnSplit, section 3.3",
)
