"""A window read off the gradient of the first layer, where that is dense: by a division, whatever lies above it."""

import math

import torch
from torch import nn

from hcqsfl.privacy.attack import Attack, Budget, Guess, Knowledge
from hcqsfl.privacy.gradients import seen_updates, windows_of_each
from hcqsfl.privacy.observation import NotApplicable, Observation
from hcqsfl.randomness import torch_seeded


def run(observation: Observation, knowledge: Knowledge, budget: Budget, seed: int) -> Guess:
    """Divide the gradient of the first layer's weights by that of its biases, at least squares over its units.

    With one window, each unit's weights moved by the window times what its bias moved by. With several, every guess is
    one mean of them. Which updates are read is told in ``Knowledge.extra``; see
    ``hcqsfl.privacy.gradients.seen_updates``.

    Raises:
        NotApplicable: no update is seen, or not what it began from, or the first layer is not dense with a bias.

    Source: Phong et al. (2018), Privacy-preserving deep learning via additively homomorphic encryption, section 3.
    """
    updates = seen_updates(observation, knowledge)
    window = knowledge.x.shape[1:]
    with torch_seeded(seed, "first layer"):
        front = knowledge.make_front()
    name, first = next((n, m) for n, m in front.named_modules() if next(m.parameters(recurse=False), None) is not None)
    if not (isinstance(first, nn.Linear) and first.bias is not None and first.in_features == math.prod(window)):
        raise NotApplicable("the first layer is no dense one with a bias that reads the whole window")
    found = []
    for before, after in updates.values():
        budget.spend()
        weight, bias = (before[f"front.{name}.{key}"] - after[f"front.{name}.{key}"] for key in ("weight", "bias"))
        found.append((bias @ weight / bias.square().sum().clamp_min(1e-30)).view(1, *window))
    n = windows_of_each(observation, knowledge, updates)
    return Guess(windows=torch.stack(found).expand(-1, n, *window).flatten(0, 1))


ATTACK = Attack(
    "A8",
    "windows",
    ("T4", "T5"),
    run,
    "Phong et al. (2018), Privacy-preserving deep learning via additively homomorphic encryption, section 3",
)
