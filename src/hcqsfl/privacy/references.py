"""Reference models: what networks of the same make do that were, or were not, trained on a window."""

import copy
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hcqsfl.models.defence import Defence
from hcqsfl.models.learner import Network
from hcqsfl.models.predict import predict
from hcqsfl.privacy.attack import Budget, Knowledge
from hcqsfl.privacy.dp_sgd import Privatise
from hcqsfl.privacy.observation import NotApplicable, Observation
from hcqsfl.randomness import derive, torch_generator, torch_seeded


@dataclass(frozen=True, eq=False)
class References:
    """What an attacker trained.

    Attributes:
        networks: the reference models.
        asked_in: ``(n_models, n_asked)`` bool, whether a window asked about was in a model's training.
        known_in: ``(n_models, n_aux)`` bool, the same of the auxiliary windows.
        steps: optimiser steps of each; ``recipe`` what the training under attack took, epoch for epoch.
    """

    networks: tuple[Network, ...]
    asked_in: Tensor
    known_in: Tensor
    steps: int
    recipe: int


_TRAINED: weakref.WeakKeyDictionary[Knowledge, dict[Any, tuple[References, int]]] = weakref.WeakKeyDictionary()


def train_references(
    observation: Observation, knowledge: Knowledge, budget: Budget, seed: int, *, online: bool = False
) -> References:
    """Train networks of the same make by the same recipe, each on a random half of the auxiliary windows.

    ``Knowledge.extra["n_references"]`` says how many, 4 unless given. The budget bounds their steps together. The same
    attacker (the same ``knowledge``) trains them but once; each attack that uses them is charged in full.

    Args:
        observation: holds the windows asked about.
        knowledge: auxiliary windows, make and recipe.
        budget: charged a step at a time.
        seed: of initialisation, halves and batches.
        online: whether a random half of the windows asked about is trained on as well.

    Raises:
        NotApplicable: no windows are asked about.
        ValueError: there are fewer than two auxiliary windows, or the budget is less than a step for each model.

    Source: Carlini et al. (2022), Membership inference attacks from first principles, section 4 (halves drawn sample by
    sample).
    """
    x, y = asked(observation)
    n = int(knowledge.extra.get("n_references", 4))
    if len(knowledge.x) < 2:
        raise ValueError(f"{len(knowledge.x)} auxiliary windows were given; reference models need at least 2")
    key = (seed, n, online, id(observation.asked_x))
    held = _TRAINED.setdefault(knowledge, {})
    if key not in held:
        each = (budget.evaluations - budget.spent) // n
        if each < 1:
            raise ValueError(f"{budget.evaluations - budget.spent} evaluations do not train {n} reference models")
        asked_in = _halves(n, len(x), seed, "asked") if online else torch.zeros(n, len(x), dtype=torch.bool)
        known_in = _halves(n, len(knowledge.x), seed, "known")
        largest = int((known_in.sum(dim=1) + asked_in.sum(dim=1)).max())
        recipe = _recipe_steps(knowledge.training, largest)
        steps = min(each, recipe)
        networks = []
        for i in range(n):
            own_x = torch.cat([knowledge.x[known_in[i]], x[asked_in[i]]])
            own_y = torch.cat([knowledge.y[known_in[i]], y[asked_in[i]]])
            networks.append(_trained(knowledge, own_x, own_y, steps, seed, i))
        held[key] = References(tuple(networks), asked_in, known_in, steps, recipe), n * steps
    found, spent = held[key]
    budget.spent += spent
    return found


def asked(observation: Observation) -> tuple[Tensor, Tensor]:
    """Return the windows asked about and their labels.

    Raises:
        NotApplicable: there are none.
    """
    if observation.asked_x is None or observation.asked_y is None:
        raise NotApplicable(f"{observation.threat} was given no windows to ask about")
    return observation.asked_x, observation.asked_y


def confidence(logits: Tensor, y: Tensor) -> Tensor:
    """Return the logit of the label's probability, ``log(p / (1 - p))``, without loss of precision.

    Args:
        logits: ``(..., n, n_outputs)``.
        y: ``(n,)``.

    Source: Carlini et al. (2022), section 4.2 (logit scaling).
    """
    own = logits.gather(-1, y.expand(logits.shape[:-1]).unsqueeze(-1)).squeeze(-1)
    others = logits.scatter(-1, y.expand(logits.shape[:-1]).unsqueeze(-1), float("-inf"))
    return own - others.logsumexp(dim=-1)


def answers(networks: tuple[Network, ...], x: Tensor) -> Tensor:
    """Return logits ``(n_models, n, n_outputs)``."""
    return torch.stack([predict(network, x) for network in networks])


def _halves(n_models: int, n: int, seed: int, name: str) -> Tensor:
    """Draw for each window half of the models, sample by sample; one more or less where the number is odd."""
    drawn = torch.rand(n_models, n, generator=torch_generator(seed, "references", name))
    return drawn.argsort(dim=0).argsort(dim=0) < max(1, n_models // 2) if n_models > 1 else drawn < 0.5


def _recipe_steps(training: Mapping[str, Any], n: int) -> int:
    per_epoch = -(-n // int(training.get("batch_size", 32)))
    return int(training.get("rounds", 10)) * int(training.get("local_epochs", 1)) * per_epoch


def _trained(knowledge: Knowledge, x: Tensor, y: Tensor, steps: int, seed: int, place: int) -> Network:
    t = knowledge.training
    with torch_seeded(seed, "reference", place):
        network = Network(knowledge.make_front(), knowledge.make_trunk(), knowledge.make_head(), t.get("class_weights"))
        if isinstance(knowledge.defence, Defence):
            network.defend(copy.deepcopy(knowledge.defence))
        steppers = _steppers(network, t, seed, place)
        generator = torch_generator(seed, "reference batches", place)
        network.train()
        done = 0
        while done < steps:
            for batch in torch.randperm(len(x), generator=generator).split(int(t.get("batch_size", 32))):
                if done == steps:
                    break
                for stepper in steppers:
                    stepper.zero_grad()
                own = x[batch].requires_grad_(t.get("dp_sgd") is not None)  # as its hooks want
                network.loss(own, y[batch]).backward()
                for stepper in steppers:
                    stepper.step()
                done += 1
    return network.eval()


def _steppers(network: Network, t: Mapping[str, Any], seed: int, place: int) -> list[torch.optim.Optimizer]:
    """Return what trains a reference: under DP-SGD each half clips and noises as those under attack did."""
    if t.get("dp_sgd") is None:
        return [optimizer_of(t, [p for p in network.parameters() if p.requires_grad])]
    batch_size = int(t.get("batch_size", 32))
    private = Privatise(**t["dp_sgd"], divisor=batch_size, seed=derive(seed, "reference noise", place))
    network.divisor = batch_size  # the loss is a sum over the expected batch
    made = []
    for part, half in (("client", nn.ModuleList([network.front, network.head])), ("trunk", network.trunk)):
        held = [p for p in half.parameters() if p.requires_grad]
        if held:
            made.append(private(half, optimizer_of(t, held), part))
    return made


def optimizer_of(t: Mapping[str, Any], parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """Return the optimiser that ``Knowledge.training`` tells of, on some parameters."""
    rate, decay = float(t.get("learning_rate", 1e-3)), float(t.get("weight_decay", 0.0))
    if t.get("optimizer") == "sgd":
        return torch.optim.SGD(parameters, lr=rate, momentum=float(t.get("momentum", 0.0)), weight_decay=decay)
    kind = torch.optim.AdamW if t.get("optimizer") == "adamw" else torch.optim.Adam
    return kind(parameters, lr=rate, weight_decay=decay)
