"""A3: a substitute front that only has to make smashed data of the same distribution; no label is needed.

Source: Xu et al. (2024), A stealthy wolf in sheep's clothing: feature-oriented reconstruction attack (FORA), sections
4.2 (substitute client: domain discriminator and multi-kernel discrepancy) and 4.3 (inverse network on public data).
"""

import torch
from torch import nn

from hcqsfl.models.defence import Defence
from hcqsfl.privacy.attack import Attack, Budget, Guess, Knowledge
from hcqsfl.privacy.inversion.critic import Critic, wasserstein_step
from hcqsfl.privacy.inversion.decoder import BATCH, decode, divide, tuned
from hcqsfl.privacy.inversion.halves import smashed_shape, split_front
from hcqsfl.privacy.inversion.releases import averaged
from hcqsfl.privacy.inversion.shadow import defended, mmd, seen_smashed
from hcqsfl.privacy.observation import Observation
from hcqsfl.randomness import torch_generator, torch_seeded


def run(observation: Observation, knowledge: Knowledge, budget: Budget, seed: int) -> Guess:
    """Reconstruct the targets.

    ``knowledge.extra``: ``critic``, the weight of the discriminator beside the discrepancy, in [0, 1]; 0 unless given,
    as published.
    """
    seen = averaged(observation, knowledge)
    share = budget.evaluations - budget.spent
    weight = float(knowledge.extra.get("critic", 0.0))
    front = substitute(observation, knowledge, budget, share // 2, weight, seed)
    crossing = defended(front, front, knowledge, seen.effective)
    fitted, tried = tuned(crossing, smashed_shape(observation), knowledge, budget, share - share // 2, seed)
    facts = {"critic": weight, "auxiliary_mse": fitted.loss, "plateau": fitted.plateau, "capacity": tried}
    return Guess(windows=decode(fitted.decoder, seen.smashed, knowledge), facts=facts)


def substitute(
    observation: Observation, knowledge: Knowledge, budget: Budget, steps: int, weight: float, seed: int
) -> nn.Module:
    """Train a front whose smashed data are distributed as those of the newest round."""
    smashed, _ = seen_smashed(observation)
    x = knowledge.x[divide(knowledge, seed).train]
    generator = torch_generator(seed, "substitute batches")
    defence = knowledge.defence if isinstance(knowledge.defence, Defence) else None
    with torch_seeded(seed, "substitute"):
        front, _ = split_front(observation, knowledge)
        critic = Critic(smashed.shape[1:])
        if defence is not None:
            defence.stand_behind(front)
        optimizer = torch.optim.Adam(front.parameters(), lr=2e-3)
        judge = torch.optim.Adam(critic.parameters(), lr=1e-3, betas=(0.5, 0.9))
        front.train()
        for _ in range(steps):
            if not budget.spend():
                break
            n = min(BATCH, len(x))
            batch = x[torch.randint(len(x), (n,), generator=generator)]
            real = smashed[torch.randint(len(smashed), (n,), generator=generator)]
            made = front(batch)
            made = made if defence is None else defence(made, batch)
            loss = (1 - weight) * mmd(made, real)
            if weight:
                wasserstein_step(critic, judge, real, made.detach())
                loss = loss - weight * critic(made).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
    return front.requires_grad_(False)


ATTACK = Attack(
    id="A3",
    goal="windows",
    threats=("T1", "T6"),
    run=run,
    source="Xu et al. (2024), A stealthy wolf in sheep's clothing (FORA), sections 4.2-4.3",
    adaptive=True,
)
