"""Inverting gradients: the direction of the gradient, and what signals look like."""

import torch

from hcqsfl.privacy.attack import Attack, Budget, Guess, Knowledge
from hcqsfl.privacy.gradients import box, cosine_distance, label_counts, pose
from hcqsfl.privacy.observation import Observation
from hcqsfl.privacy.priors import aperiodicity, bend, periods, total_variation
from hcqsfl.randomness import torch_generator

STEP, SMOOTH, PERIODIC, STRAIGHT = 0.1, 1e-3, 1e-3, 1e-3


def run(observation: Observation, knowledge: Knowledge, budget: Budget, seed: int) -> Guess:
    """Turn the windows' gradient towards the one seen, by Adam on the signs of the slopes, within the auxiliary range.

    Labels are read off the last layer first. What signals look like enters as total variation, as the difference of
    samples one period apart (the period that the auxiliary windows have, channel by channel), and as the bending of the
    trend; all three are nothing for rows of a table. The step shrinks tenfold after 3/8, 5/8 and 7/8 of the way. The
    try with the best direction counts.

    Which update is inverted is told in ``Knowledge.extra``; see ``hcqsfl.privacy.gradients.pose``. A FedAvg update of
    several plain SGD epochs is unrolled; one of an adaptive optimiser is taken for a single gradient.

    Raises:
        NotApplicable: no update is seen, or not what it began from, or the last layer is not in it.

    Source: Geiping et al. (2020), Inverting gradients, equation 4 and section 6 (FedAvg); Meijer et al. (2025),
    TS-Inverse, for the idea of the periodic and trend terms.
    """
    problem = pose(observation, knowledge, budget, seed)
    labels = label_counts(problem, knowledge)
    soft = torch.nn.functional.one_hot(labels, problem.n_outputs).float()
    generator = torch_generator(seed, "inverting gradients")
    low, high = box(knowledge)
    lags = periods(knowledge.x) if knowledge.x.shape[2] > 1 else []
    each = max(1, (budget.evaluations - budget.spent) // budget.trials)
    best, found = float("inf"), None
    for _ in range(budget.trials):
        x = torch.randn((problem.n, *knowledge.x.shape[1:]), generator=generator).clamp(low, high).requires_grad_()
        optimizer = torch.optim.Adam([x], lr=STEP)
        milestones = [each * k // 8 for k in (3, 5, 7)]
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, gamma=0.1)
        for _ in range(each):
            budget.spend()
            distance = cosine_distance(problem.moved(x, soft), problem.movement)
            prior = SMOOTH * total_variation(x) + PERIODIC * aperiodicity(x, lags) + STRAIGHT * bend(x)
            (slope,) = torch.autograd.grad(distance + prior, x)
            x.grad = slope.sign()
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                x.clamp_(low, high)
        error = float(cosine_distance(problem.moved(x, soft), problem.movement).detach())
        if error < best or found is None:
            best, found = error, x.detach()
    facts = {"cosine_distance": best, "guessed_trunk": problem.guessed_trunk, "periods": lags}
    return Guess(windows=found, labels=soft, facts=facts)


ATTACK = Attack(
    "A8",
    "windows",
    ("T4", "T5"),
    run,
    "Geiping et al. (2020), Inverting gradients, equation 4 and section 6; Meijer et al. (2025), TS-Inverse, "
    "for the idea of the periodic and trend terms",
)
