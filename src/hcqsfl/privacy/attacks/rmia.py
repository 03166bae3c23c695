"""Compare a window's likelihood ratio with those of a population."""

import numpy as np
import torch
from torch import Tensor

from hcqsfl.privacy.attack import Attack, Budget, Guess, Knowledge
from hcqsfl.privacy.observation import NotApplicable, Observation
from hcqsfl.privacy.references import References, answers, asked, train_references

GAMMA = 1.0
OFFLINE = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


def run(observation: Observation, knowledge: Knowledge, budget: Budget, seed: int) -> Guess:
    """Score each window by the share of the population whose likelihood ratio it exceeds.

    The ratio of a window is its label's probability under the final model over its mean probability under reference
    models. The population are the auxiliary windows, each in the training of half the reference models. For the windows
    asked about, which none was trained on, the mean with members is made from the mean without by a slope that is
    chosen on the reference models themselves, one of them standing for the model under attack.

    Raises:
        NotApplicable: the model cannot be asked, or no windows are asked about.
        ValueError: the budget does not train the reference models.

    Source: Zarifzadeh, Liu & Shokri (2024), Low-cost high-power membership inference attacks, equations 3 to 5 and
    appendix B.2.2 (the slope).
    """
    if observation.query is None:
        raise NotApplicable(f"{observation.threat} cannot ask the final model")
    x, y = asked(observation)
    references = train_references(observation, knowledge, budget, seed)
    p_x, p_z = probability(observation.query(x), y), probability(observation.query(knowledge.x), knowledge.y)
    out_x = probability(answers(references.networks, x), y).mean(dim=0)
    all_z = probability(answers(references.networks, knowledge.x), knowledge.y)
    slope = chosen_slope(all_z, references)
    scores = rmia_score(p_x, with_members(out_x, slope), p_z, _mean_in_and_out(all_z, references.known_in))
    facts = {"n_references": len(references.networks), "slope": slope, "reference_steps": references.steps}
    return Guess(membership=scores, facts={**facts, "recipe_steps": references.recipe})


def probability(logits: Tensor, y: Tensor) -> Tensor:
    """Return the probability ``(..., n)`` of the labels ``(n,)``, in double precision."""
    p = logits.double().softmax(dim=-1)
    return p.gather(-1, y.expand(p.shape[:-1]).unsqueeze(-1)).squeeze(-1).clamp_min(1e-30)


def with_members(out: Tensor, slope: float) -> Tensor:
    """Return ``p(x)`` as the mean of models without the window and, from a line, of models with it.

    Half of ``out`` and half of ``slope * out + 1 - slope``.
    """
    return 0.5 * ((1 + slope) * out + (1 - slope))


def rmia_score(p_x: Tensor, mean_x: Tensor, p_z: Tensor, mean_z: Tensor, gamma: float = GAMMA) -> np.ndarray:
    """Return for each window the share of ``z`` with ``(p_x / mean_x) / (p_z / mean_z) >= gamma``.

    Args:
        p_x, mean_x: ``(n,)`` under the model under attack, and over reference models.
        p_z, mean_z: ``(m,)`` the same of the population.
        gamma: by how much a ratio must be exceeded.
    """
    ratios_z = np.sort((p_z / mean_z).numpy())
    ratios_x = (p_x / mean_x).numpy() / gamma
    # ties among saturated probabilities are broken by the ratio itself, which keeps the order of the shares
    share = np.searchsorted(ratios_z, ratios_x, side="right") / len(ratios_z)
    broken: np.ndarray = share + 1e-9 * ratios_x / (1 + ratios_x)
    return broken


def chosen_slope(all_z: Tensor, references: References) -> float:
    """Return the slope under which the attack does best on the first reference model, whose members are known.

    Args:
        all_z: ``(n_models, m)`` probabilities of the auxiliary windows.
        references: who was trained on which.
    """
    if len(all_z) < 2:
        return OFFLINE[1]
    member = references.known_in[0].numpy()
    if member.all() or not member.any():
        return OFFLINE[1]
    without = ~references.known_in[1:]
    # models that never saw the window; where all have, their mean has to do
    count = without.sum(dim=0)
    out = torch.where(count > 0, (all_z[1:] * without).sum(dim=0) / count.clamp_min(1), all_z[1:].mean(dim=0))

    def separation(slope: float) -> float:
        ratio = (all_z[0] / with_members(out, slope)).numpy()
        inside, outside = ratio[member], np.sort(ratio[~member])
        below = np.searchsorted(outside, inside, side="left") + np.searchsorted(outside, inside, side="right")
        return float(below.mean() / (2 * len(outside)))

    return max(OFFLINE, key=separation)


def _mean_in_and_out(p: Tensor, included: Tensor) -> Tensor:
    """Return half the mean over models with the window and half that over models without, where there are both."""
    both = []
    for chosen in (included, ~included):
        count = chosen.sum(dim=0)
        both.append(torch.where(count > 0, (p * chosen).sum(dim=0) / count.clamp_min(1), p.mean(dim=0)))
    return 0.5 * (both[0] + both[1])


ATTACK = Attack(
    "A10",
    "membership",
    ("T10", "T9"),
    run,
    "Zarifzadeh, Liu & Shokri (2024), Low-cost high-power membership inference attacks, equations 3 to 5",
    adaptive=True,
)
