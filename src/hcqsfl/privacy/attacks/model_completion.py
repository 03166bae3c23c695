"""Complete the network with a head of one's own, trained on a few labels and on everything that crossed without."""

import torch
from torch import Tensor, nn

from hcqsfl.privacy.attack import Attack, Budget, Guess, Knowledge
from hcqsfl.privacy.few_labels import given, refuse_shared
from hcqsfl.privacy.observation import Observation
from hcqsfl.privacy.plateau import Plateau
from hcqsfl.privacy.views import rows, standardised
from hcqsfl.randomness import torch_generator, torch_seeded

NOISE, SHARPNESS, ALPHA, WEIGHT = 0.1, 0.5, 0.75, 1.0
WIDTH = 64
RAMP = 500
"""Steps at most over which the weight of the unlabelled rows grows."""


def run(observation: Observation, knowledge: Knowledge, budget: Budget, seed: int) -> Guess:
    """Train a head by MixMatch on what crossed, with a few labels (passive model completion).

    Each step guesses the labels of the unlabelled rows from two noisy copies, sharpens the mean, mixes labelled and
    unlabelled rows, and lowers the cross entropy of the first and the squared error of the second, whose weight grows
    over the first half of the steps, or ``RAMP``. ``Knowledge.extra["view"]`` names what the head reads, several joined
    by ``+``: ``features`` unless given.

    Raises:
        NotApplicable: labels are shared, or what is to be read does not cross.
        ValueError: the labelled rows are of fewer than two classes.

    Source: Fu et al. (2022), Label inference attacks against vertical federated learning, section 4.1; Berthelot et al.
    (2019), MixMatch, algorithm 1.
    """
    refuse_shared(observation)
    views = knowledge.extra.get("view", "features").split("+")
    x = torch.cat([standardised(rows(observation, view)) for view in views], dim=1)
    places, labels = given(knowledge)
    known, y = x[places], nn.functional.one_hot(labels, knowledge.n_outputs).float()
    generator = torch_generator(seed, "model completion")
    with torch_seeded(seed, "model completion", "init"):
        head = nn.Sequential(nn.Linear(x.shape[1], WIDTH), nn.GELU(), nn.Linear(WIDTH, knowledge.n_outputs))
    optimizer = torch.optim.Adam(head.parameters(), lr=3e-3, weight_decay=1e-3)
    steps = max(1, budget.evaluations - budget.spent)
    ramp = min(RAMP, steps / 2)
    plateau = Plateau(after=round(ramp))
    for step in range(steps):
        budget.spend()
        guessed = _guessed(head, x, generator)
        drawn = torch.randint(len(known), (len(x),), generator=generator)
        # as many labelled rows, drawn with repetition, as there are unlabelled ones
        everything, targets = torch.cat([known[drawn], x]), torch.cat([y[drawn], guessed])
        mixed, mixed_targets = _mixed(everything, targets, generator)
        log_p = head(mixed).log_softmax(dim=1)
        half = len(drawn)
        supervised = -(mixed_targets[:half] * log_p[:half]).sum(dim=1).mean()
        consistent = ((log_p[half:].exp() - mixed_targets[half:]) ** 2).mean()
        loss = supervised + WEIGHT * min(1.0, step / ramp) * consistent
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if plateau(float(loss.detach())):
            break
    with torch.no_grad():
        return Guess(labels=head(x).softmax(dim=1), facts={"plateau": plateau.reached})


@torch.no_grad()
def _guessed(head: nn.Module, x: Tensor, generator: torch.Generator) -> Tensor:
    p = torch.stack([head(x + NOISE * torch.randn(x.shape, generator=generator)).softmax(dim=1) for _ in range(2)])
    sharp = p.mean(dim=0) ** (1 / SHARPNESS)
    return sharp / sharp.sum(dim=1, keepdim=True)


def _mixed(x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mix each row with another, by a weight of at least a half (MixMatch, equations 8 to 11)."""
    # a Beta(a, a) variable as a ratio of two Gamma(a) ones
    gammas = torch._standard_gamma(torch.full((2, len(x), 1), ALPHA), generator=generator)
    weight = gammas[0] / gammas.sum(dim=0)
    weight = torch.maximum(weight, 1 - weight)
    other = torch.randperm(len(x), generator=generator)
    return weight * x + (1 - weight) * x[other], weight * y + (1 - weight) * y[other]


ATTACK = Attack(
    "A9",
    "labels",
    ("T1", "T2", "T5", "T6"),
    run,
    "Fu et al. (2022), Label inference attacks against vertical federated learning, section 4.1; Berthelot et al. "
    "(2019), MixMatch, algorithm 1",
)
