"""Tell people apart by a learnt distance."""

import torch
from torch import nn

from hcqsfl.privacy.attack import Attack, Budget, Guess, Knowledge
from hcqsfl.privacy.enrolment import enrolled, read
from hcqsfl.privacy.observation import Observation
from hcqsfl.privacy.plateau import Plateau
from hcqsfl.privacy.views import compact, standardised
from hcqsfl.randomness import torch_generator, torch_seeded

WIDTH, EMBEDDED, MARGIN, NEAREST, NOISE = 64, 16, 0.5, 3, 0.1


def run(observation: Observation, knowledge: Knowledge, budget: Budget, seed: int) -> Guess:
    """Train one network on pairs of enrolled rows; a person's score is the mean cosine to the nearest of their rows.

    Both of a pair pass through the same network; rows of one person are drawn together, rows of two pushed apart until
    their cosine is below ``1 - MARGIN``. ``Knowledge.extra["view"]`` as in ``linear_probe``.

    Raises:
        NotApplicable: what is to be read does not cross.
        ValueError: fewer than two people are enrolled.
    """
    x = compact(standardised(read(observation, knowledge)))
    places, people_, candidates = enrolled(knowledge)
    known, people = x[torch.from_numpy(places)], torch.from_numpy(people_)
    same = people[:, None] == people
    apart = ~torch.eye(len(people), dtype=torch.bool)
    generator = torch_generator(seed, "siamese")
    with torch_seeded(seed, "siamese", "init"):
        tower = nn.Sequential(nn.Linear(x.shape[1], WIDTH), nn.GELU(), nn.Linear(WIDTH, EMBEDDED))
    optimizer = torch.optim.Adam(tower.parameters(), lr=3e-3, weight_decay=1e-3)
    plateau = Plateau()
    while not plateau.reached and budget.spend():
        noisy = known + NOISE * torch.randn(known.shape, generator=generator)
        e = nn.functional.normalize(tower(noisy), dim=1)
        cosine = e @ e.t()
        pull = ((1 - cosine) ** 2)[same & apart]
        push = (cosine - (1 - MARGIN)).clamp_min(0).pow(2)[~same]
        optimizer.zero_grad()
        loss = _mean(pull) + _mean(push)
        loss.backward()
        optimizer.step()
        plateau(float(loss.detach()))
    with torch.no_grad():
        e = nn.functional.normalize(tower(x), dim=1)
        cosine = e @ e[torch.from_numpy(places)].t()
        scores = [
            own.topk(min(NEAREST, own.shape[1]), dim=1).values.mean(dim=1)
            for own in (cosine[:, people == i] for i in range(len(candidates)))
        ]
    return Guess(identity=torch.stack(scores, dim=1), candidates=candidates, facts={"plateau": plateau.reached})


def _mean(values: torch.Tensor) -> torch.Tensor:
    return values.mean() if len(values) else values.sum()


ATTACK = Attack(
    "A6",
    "identity",
    ("T1", "T2", "T4", "T5", "T6"),
    run,
    "Hadsell, Chopra & LeCun (2006), Dimensionality reduction by learning an invariant mapping, equation 4, on cosines",
    adaptive=True,
)
