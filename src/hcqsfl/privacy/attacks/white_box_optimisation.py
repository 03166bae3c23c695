"""A2: with the clients' front in hand, search for the window that makes the smashed data seen.

The search keeps to windows that look like signals of this kind: small differences from sample to sample, and power at
each frequency as in other people's windows. On rows of a table, only the latter is left, each column's mean and
deviation.

Source: He et al. (2019), Model inversion attacks against collaborative inference, section 3 (regularised maximum
likelihood estimation, equation 2, total variation); the prior over frequencies is the Gaussian one of a stationary
signal, Brillinger (1981), Time series, theorem 4.4.1.
"""

import torch
from torch import Tensor

from hcqsfl.privacy.attack import Attack, Budget, Guess, Knowledge
from hcqsfl.privacy.inversion.decoder import snapped
from hcqsfl.privacy.inversion.halves import Encode, front_at, in_evaluation
from hcqsfl.privacy.inversion.releases import averaged
from hcqsfl.privacy.inversion.shadow import defended
from hcqsfl.privacy.observation import NotApplicable, Observation
from hcqsfl.randomness import torch_generator, torch_seeded

SETTINGS = ((1e-2, 1e-3), (1e-1, 1e-2), (1e-3, 1e-4), (1e-2, 0.0), (1e-1, 0.0), (1.0, 1e-2))
"""Weights of the prior over frequencies and of the total variation, in the order in which they are tried."""


def run(observation: Observation, knowledge: Knowledge, budget: Budget, seed: int) -> Guess:
    """Reconstruct the targets; the weights of the priors are chosen on auxiliary windows with the same front."""
    if not observation.client_states:
        raise NotApplicable(f"a search through the clients' front needs the front, which {observation.threat} has not")
    seen = averaged(observation, knowledge)
    rounds = [observation.exchanges[target.exchange].round for target in observation.targets]
    numbers = sorted(set(rounds))
    found = torch.empty(len(rounds), *knowledge.x.shape[1:])
    trials = min(budget.trials, len(SETTINGS))
    share = (budget.evaluations - budget.spent) // (len(numbers) + (1 if trials > 1 else 0))
    setting, facts = SETTINGS[0], {}
    with torch_seeded(seed, "white-box optimisation"):
        if trials > 1:
            encode = _encode(observation, knowledge, numbers[-1], seen.effective)
            drawn = torch.randperm(len(knowledge.x), generator=torch_generator(seed, "shadow victim"))[:64]
            x = knowledge.x[drawn]
            losses = {}
            with torch.no_grad():
                smashed = encode(x)
            for candidate in SETTINGS[:trials]:
                made = search(encode, smashed, knowledge, candidate, budget, share // trials)
                losses[candidate] = float((made - x).square().mean())
            setting = min(losses, key=lambda each: losses[each])
            facts["tuned"] = {str(each): loss for each, loss in losses.items()}
        for number in numbers:
            rows = torch.tensor([place for place, n in enumerate(rounds) if n == number])
            encode = _encode(observation, knowledge, number, seen.effective)
            found[rows] = search(encode, seen.smashed[rows], knowledge, setting, budget, share)
    return Guess(windows=found, facts={"weights": list(setting), "averaged": seen.effective, **facts})


def _encode(observation: Observation, knowledge: Knowledge, number: int, releases: float) -> Encode:
    """Return the clients' front of a round, without dropout, and what a known defence makes of it."""
    front = in_evaluation(front_at(observation, knowledge, number))
    return defended(front, front, knowledge, releases)


def search(
    encode: Encode, smashed: Tensor, knowledge: Knowledge, setting: tuple[float, float], budget: Budget, steps: int
) -> Tensor:
    """Return windows ``(n, n_chans, n_times)`` whose smashed data come close to ``smashed (n, ...)``.

    Args:
        encode: windows to smashed data, differentiable.
        smashed: what was seen.
        knowledge: whose auxiliary windows give the prior.
        setting: weights of the prior and of the total variation.
        budget: one evaluation a step, all windows at once.
        steps: most of them.
    """
    x = knowledge.x
    level = x.mean(dim=0)
    power = torch.fft.rfft(x - level, dim=2, norm="ortho").abs().square().mean(dim=0)  # (c, f)
    power = power + 1e-3 * power.mean(dim=1, keepdim=True) + 1e-6
    with torch.no_grad():
        scale = encode(x[:512]).std(dim=0, correction=0).clamp_min(1e-3)
    made = level.expand(len(smashed), -1, -1).clone().requires_grad_()
    optimizer = torch.optim.Adam([made], lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps, 1), 0.005)
    for _ in range(steps):
        if not budget.spend():
            break
        optimizer.zero_grad(set_to_none=True)
        loss = ((encode(made) - smashed) / scale).square().flatten(1).mean(dim=1)
        spectrum = torch.fft.rfft(made - level, dim=2, norm="ortho").abs().square() / power
        loss = loss + setting[0] * spectrum.flatten(1).mean(dim=1)
        if x.shape[2] > 1:
            loss = loss + setting[1] * made.diff(dim=2).abs().flatten(1).mean(dim=1)
        loss.sum().backward()
        optimizer.step()
        schedule.step()
    found = made.detach()
    return snapped(found, x) if x.shape[2] == 1 else found


ATTACK = Attack(
    id="A2",
    goal="windows",
    threats=("T2", "T5"),
    run=run,
    source="He et al. (2019), Model inversion attacks against collaborative inference, section 3, equation 2",
    adaptive=True,
)
