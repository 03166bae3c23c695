"""Inverting gradients: the direction of the gradient, and what signals look like."""

import torch
from torch import Tensor

from hcqsfl.privacy.attack import Attack, Budget, Guess, Knowledge
from hcqsfl.privacy.gradients import Problem, best_tries, box, cosine_distance, label_counts, noise, pose, tries
from hcqsfl.privacy.observation import Observation
from hcqsfl.privacy.priors import aperiodicity, bend, periods, total_variation

STEP, SMOOTH, PERIODIC, STRAIGHT = 0.1, 1e-3, 1e-3, 1e-3
BETAS, TINY = (0.9, 0.999), 1e-8
"""Of Adam."""

STAGES = (3, 2, 2, 1)
"""Eighths of the evaluations at each size of the step, which shrinks tenfold from one to the next."""

GAIN, LEAST_PATIENCE = 0.995, 50
"""A stage ends early where for a sixteenth of the evaluations, or so many, the loss has not come below this share."""


def run(observation: Observation, knowledge: Knowledge, budget: Budget, seed: int) -> Guess:
    """Turn the windows' gradients towards those seen, by Adam on the signs of the slopes, within the auxiliary range.

    Labels are read off the last layer first. What signals look like enters as total variation, as the difference of
    samples one period apart (the period that the auxiliary windows have, channel by channel), and as the bending of the
    trend; all three are nothing for rows of a table. The step shrinks tenfold after 3/8, 5/8 and 7/8 of the way, or
    where the loss gains nothing more; an update whose loss gains nothing at the last size is left. The try with the
    best direction counts.

    Which updates are inverted is told in ``Knowledge.extra``; see ``hcqsfl.privacy.gradients.pose``. A FedAvg update of
    several plain SGD epochs is unrolled; one of an adaptive optimiser is taken for a single gradient.

    Raises:
        NotApplicable: no update is seen, or not what it began from, or the last layer is not in it.

    Source: Geiping et al. (2020), Inverting gradients, equation 4 and section 6 (FedAvg); Meijer et al. (2025),
    TS-Inverse, for the idea of the periodic and trend terms.
    """
    problem = pose(observation, knowledge, budget, seed)
    soft = torch.nn.functional.one_hot(label_counts(problem, knowledge), problem.n_outputs).float()
    low, high = box(knowledge)
    lags = periods(knowledge.x) if knowledge.x.shape[2] > 1 else []
    everything, each = tries(problem, budget)
    soft_of_all = soft.repeat(budget.trials, 1, 1)
    start = noise(problem, budget.trials, (problem.n, *knowledge.x.shape[1:]), seed, "inverting").clamp(low, high)
    x, before = _turned(everything, start, soft_of_all, (low, high), lags, each, budget)
    budget.spend(len(x))
    errors = cosine_distance(everything.moved(x, soft_of_all), everything.movement).detach()
    best = best_tries(errors, problem)
    facts = {
        "cosine_distance": float(errors[best].mean()),
        "cosine_distance_of_noise": float(before.mean()),
        "cosine_distances": [round(float(error), 5) for error in errors[best]],
        "guessed_trunk": problem.guessed_trunk,
        "periods": lags,
    }
    return Guess(windows=x[best].flatten(0, 1), labels=soft.flatten(0, 1), facts=facts)


def _turned(
    problem: Problem,
    x: Tensor,
    soft: Tensor,
    limits: tuple[Tensor, Tensor],
    lags: list[int],
    evaluations: int,
    budget: Budget,
) -> tuple[Tensor, Tensor]:
    """Return windows ``(u, n, n_chans, n_times)`` after the last step, and the distances ``(u,)`` before the first."""
    found, before = x.clone(), x.new_zeros(len(x))
    first, second = torch.zeros_like(x), torch.zeros_like(x)
    lengths = torch.tensor([max(1, evaluations * eighths // 8) for eighths in STAGES])
    patience = max(LEAST_PATIENCE, evaluations // 16)
    stage, since, stale = (torch.zeros(len(x), dtype=torch.long) for _ in range(3))
    best = x.new_full((len(x),), float("inf"))
    rows, some = torch.arange(len(x)), problem
    for step in range(1, evaluations + 1):
        budget.spend(len(rows))
        x = x.detach().requires_grad_()
        distance = cosine_distance(some.moved(x, soft), some.movement)
        windows = x.flatten(0, 1)
        prior = SMOOTH * total_variation(windows) + PERIODIC * aperiodicity(windows, lags) + STRAIGHT * bend(windows)
        # the priors are means over all windows, and each update's share of them is to be that of its own
        (slope,) = torch.autograd.grad(distance.sum() + len(rows) * prior, x)
        if step == 1:
            before = distance.detach()
        with torch.no_grad():
            sign = slope.sign()
            first.lerp_(sign, 1 - BETAS[0])
            second.lerp_(sign.square(), 1 - BETAS[1])
            spread = (second / (1 - BETAS[1] ** step)).sqrt() + TINY
            rate = STEP * 0.1 ** stage.to(x.dtype).view(-1, 1, 1, 1)
            x = (x - rate / (1 - BETAS[0] ** step) * first / spread).clamp(*limits)
            gained = distance < GAIN * best
            best = torch.where(gained, distance, best)
            since, stale = since + 1, torch.where(gained, 0, stale + 1)
            over = (since >= lengths[stage]) | (stale >= patience)
            if not over.any():
                continue
            stage, since, stale = stage + over, since * ~over, stale * ~over
            found[rows] = x
            kept = stage < len(STAGES)
            if not kept.any():
                break
            if not kept.all():
                rows, x, soft, first, second = rows[kept], x[kept], soft[kept], first[kept], second[kept]
                stage, since, stale, best = stage[kept], since[kept], stale[kept], best[kept]
                some = problem.take(rows)
    found[rows] = x.detach()
    return found, before


ATTACK = Attack(
    "A8",
    "windows",
    ("T4", "T5"),
    run,
    "Geiping et al. (2020), Inverting gradients, equation 4 and section 6; Meijer et al. (2025), TS-Inverse, "
    "for the idea of the periodic and trend terms",
)
