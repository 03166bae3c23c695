"""A5: nothing but the smashed data and the architecture: search for the windows and the front at once.

Steps on the windows, which are to vary little from sample to sample and stay small, take turns with steps on a clone of
the front. No auxiliary window is used; that inputs are scaled to about mean 0 and deviation 1 is known of any network.

Source: Erdogan et al. (2022), UnSplit: data-oblivious model inversion, model stealing, and label inference attacks
against split learning, section 3.1, algorithm 1.
"""

import torch

from hcqsfl.privacy.attack import Attack, Budget, Guess, Knowledge
from hcqsfl.privacy.inversion.halves import split_front
from hcqsfl.privacy.inversion.releases import averaged
from hcqsfl.privacy.observation import Observation
from hcqsfl.privacy.plateau import Plateau
from hcqsfl.randomness import torch_seeded

TURN = 10
"""Steps on the windows, then on the clone."""
VARIATION, SIZE = 0.1, 1e-3
"""Weights of the total variation, as published, and of the squared size, lower: windows are not bounded by 1 here."""


def run(observation: Observation, knowledge: Knowledge, budget: Budget, seed: int) -> Guess:
    """Reconstruct the targets; ``knowledge`` gives the architecture and a window's shape, its data are not read."""
    smashed = averaged(observation, knowledge).smashed
    scale = smashed.std(dim=0, correction=0).clamp_min(1e-3)
    with torch_seeded(seed, "unsplit"):
        front, _ = split_front(observation, knowledge)
        front.eval()
        made = (0.01 * torch.randn(len(smashed), *knowledge.x.shape[1:])).requires_grad_()
        windows = torch.optim.Adam([made], lr=0.02, amsgrad=True)
        weights = torch.optim.Adam(front.parameters(), lr=1e-3, amsgrad=True)
        step, distance = 0, torch.zeros(())
        plateau = Plateau()  # its spans are whole numbers of turns
        while not plateau.reached and budget.spend():
            on_windows = step // TURN % 2 == 0
            front.requires_grad_(not on_windows)
            distance = ((front(made if on_windows else made.detach()) - smashed) / scale).square().mean()
            loss = distance
            if on_windows:
                variation = made.diff(dim=2).abs().mean() if made.shape[2] > 1 else 0.0
                loss = distance + VARIATION * variation + SIZE * made.square().mean()
            optimizer = windows if on_windows else weights
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            step += 1
            plateau(float(distance.detach()))
    return Guess(windows=made.detach(), facts={"distance": float(distance.detach()), "plateau": plateau.reached})


ATTACK = Attack(
    id="A5",
    goal="windows",
    threats=("T1", "T6"),
    run=run,
    source="Erdogan et al. (2022), UnSplit, section 3.1, algorithm 1",
)
