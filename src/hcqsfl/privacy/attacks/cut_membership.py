"""Tell from smashed data alone whether a window was trained on."""

import copy

import numpy as np
import torch
from torch import Tensor, nn

from hcqsfl.models.defence import Defence
from hcqsfl.privacy.attack import Attack, Budget, Guess, Knowledge
from hcqsfl.privacy.observation import Observation
from hcqsfl.privacy.references import train_references

NEIGHBOURS = 5


def run(observation: Observation, knowledge: Knowledge, budget: Budget, seed: int) -> Guess:
    """Learn on shadow networks, whose members are known, what smashed data of members look like.

    Rows are those that clients sent for inference with the final model. What is read of each is the same whatever
    basis a front chose: its length, how far it saturates the angles, how far its nearest neighbours are, and what the
    trunk makes of it: length and, where labels are shared, loss and the length of its gradient.

    Raises:
        NotApplicable: no smashed data cross, or no windows are asked about.
        ValueError: the budget does not train the shadow networks.

    Source: Salem et al. (2019), ML-Leaks, section 4 (adversary 1), on smashed data in place of posteriors.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    z = observation.stacked("smashed")
    trunk = knowledge.make_trunk()
    state = observation.last("trunk_states")
    trunk.load_state_dict({k.removeprefix("trunk."): t for k, t in state.items() if k.startswith("trunk.")})
    labels = observation.stacked("labels") if observation.label_sharing else None
    head = None
    if labels is not None:
        head = knowledge.make_head()
        head.load_state_dict({k.removeprefix("head."): t for k, t in state.items() if k.startswith("head.")})
    shadows = train_references(observation, knowledge, budget, seed)
    signs, members = [], []
    for network, included in zip(shadows.networks, shadows.known_in, strict=True):
        with torch.no_grad():
            own = network.front(knowledge.x)
            if knowledge.defence is not None:
                defence = copy.deepcopy(knowledge.defence)
                if isinstance(defence, Defence):
                    defence.stand_behind(network.front)
                own = defence(own, knowledge.x)
        known = knowledge.y if labels is not None else None
        signs.append(_signs(own, network.trunk, network.head if known is not None else None, known))
        members.append(included.numpy())
    attack = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, class_weight="balanced", random_state=0))
    attack.fit(np.concatenate(signs), np.concatenate(members))
    found = attack.decision_function(_signs(z, trunk, head, labels))
    facts = {"n_references": len(shadows.networks), "reference_steps": shadows.steps, "recipe_steps": shadows.recipe}
    return Guess(membership=found, facts=facts)


def _signs(z: Tensor, trunk: nn.Module, head: nn.Module | None, y: Tensor | None) -> np.ndarray:
    """Return ``(n, 4)`` or, with labels, ``(n, 6)``: what tells members, as ranks within these rows."""
    z = z.detach().requires_grad_()
    features = trunk(z)
    scaled = (z - z.mean(dim=0)) / z.std(dim=0, correction=0).clamp_min(1e-8)
    distance = torch.cdist(scaled, scaled)
    near = distance.topk(min(NEIGHBOURS + 1, len(z)), dim=1, largest=False).values[:, 1:].mean(dim=1)
    columns = [z.norm(dim=1), z.tanh().abs().mean(dim=1), near, features.norm(dim=1)]
    if head is not None and y is not None:
        loss = nn.functional.cross_entropy(head(features), y, reduction="none")
        (gradient,) = torch.autograd.grad(loss.sum(), z)
        columns += [loss, gradient.norm(dim=1)]
    stacked = torch.stack([column.detach() for column in columns], dim=1)
    # ranks, so that networks of different scale are alike
    return stacked.argsort(dim=0).argsort(dim=0).double().numpy() / len(z)


ATTACK = Attack(
    "A10",
    "membership",
    ("T1", "T2", "T5"),
    run,
    "Salem et al. (2019), ML-Leaks, section 4 (adversary 1), on smashed data in place of posteriors",
    adaptive=True,
)
