"""Likelihood ratio of a window's confidence with and without it in the training."""

import torch
from torch import Tensor

from hcqsfl.privacy.attack import Attack, Budget, Guess, Knowledge
from hcqsfl.privacy.observation import NotApplicable, Observation
from hcqsfl.privacy.references import answers, asked, confidence, train_references

FEWEST = 64
"""Reference models below which all windows share one variance."""


def run(observation: Observation, knowledge: Knowledge, budget: Budget, seed: int) -> Guess:
    """Compare the final model's confidence in each window with that of reference models.

    Offline (the default), no reference model was trained on a window asked about, and the score is how many deviations
    the confidence lies above theirs. Online (``Knowledge.extra["online"]``), each was trained on a random half of the
    windows asked about besides, and the score is the logarithm of the ratio of two normal densities.

    Raises:
        NotApplicable: the model cannot be asked, or no windows are asked about.
        ValueError: the budget does not train the reference models.

    Source: Carlini et al. (2022), Membership inference attacks from first principles, algorithm 1 and equation 4.
    """
    if observation.query is None:
        raise NotApplicable(f"{observation.threat} cannot ask the final model")
    x, y = asked(observation)
    online = bool(knowledge.extra.get("online", False))
    references = train_references(observation, knowledge, budget, seed, online=online)
    seen = confidence(observation.query(x), y).double()
    theirs = confidence(answers(references.networks, x), y).double()  # (n_models, n)
    facts = {
        "n_references": len(references.networks),
        "reference_steps": references.steps,
        "recipe_steps": references.recipe,
    }
    if not online:
        return Guess(membership=offline_score(seen, theirs).numpy(), facts=facts)
    return Guess(membership=online_score(seen, theirs, references.asked_in).numpy(), facts=facts)


def offline_score(seen: Tensor, out: Tensor) -> Tensor:
    """Return ``(seen - mean) / deviation`` of ``out (n_models, n)``: its normal tail falls as this rises.

    Args:
        seen: ``(n,)`` confidence of the model under attack.
        out: ``(n_models, n)`` of models that never saw the windows.
    """
    middle = out.mean(dim=0)
    return (seen - middle) / _deviation(out, middle, torch.ones_like(out, dtype=torch.bool))


def online_score(seen: Tensor, theirs: Tensor, included: Tensor) -> Tensor:
    """Return the log of the density of ``seen (n,)`` among models with the window over that among models without.

    Args:
        seen: ``(n,)``.
        theirs: ``(n_models, n)`` confidences.
        included: ``(n_models, n)`` bool, whether a model was trained on the window.
    """
    logs = []
    for chosen in (included, ~included):
        middle = (theirs * chosen).sum(dim=0) / chosen.sum(dim=0).clamp_min(1)
        deviation = _deviation(theirs, middle, chosen)
        logs.append(-0.5 * ((seen - middle) / deviation) ** 2 - deviation.log())
    return logs[0] - logs[1]


def _deviation(values: Tensor, middle: Tensor, chosen: Tensor) -> Tensor:
    """Return each window's deviation over the chosen models; one for all windows where models are few."""
    squares = ((values - middle) ** 2) * chosen
    if len(values) >= FEWEST:
        variance = squares.sum(dim=0) / chosen.sum(dim=0).clamp_min(1)
    else:
        variance = (squares.sum() / chosen.sum().clamp_min(1)).expand_as(middle)
    return variance.sqrt().clamp_min(1e-12)


ATTACK = Attack(
    "A10",
    "membership",
    ("T10", "T9"),
    run,
    "Carlini et al. (2022), Membership inference attacks from first principles, algorithm 1 and equation 4",
    adaptive=True,
)
