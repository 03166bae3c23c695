"""A shadow front: the server's own copy of the clients' half, trained on other people's windows to do the same."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hcqsfl.models.defence import Defence
from hcqsfl.privacy.attack import Budget, Knowledge
from hcqsfl.privacy.inversion.decoder import BATCH, divide
from hcqsfl.privacy.inversion.halves import Encode, server_half, split_front
from hcqsfl.privacy.observation import Observation
from hcqsfl.randomness import torch_generator, torch_seeded


@dataclass(frozen=True)
class Weights:
    """How much each of a shadow's aims counts.

    Attributes:
        task: cross entropy of auxiliary labels through the server's own half.
        match: maximum mean discrepancy of smashed data from those seen.
    """

    task: float = 0.1
    match: float = 1.0


def seen_smashed(observation: Observation, number: int | None = None, most: int = 4096) -> tuple[Tensor, Tensor | None]:
    """Return the smashed data of one round ``(m, ...)``, the newest unless given, and their labels where shared."""
    newest = max(e.round for e in observation.exchanges) if number is None else number
    chosen = [e for e in observation.exchanges if e.round == newest] or list(observation.exchanges)
    smashed = torch.cat([e.smashed for e in chosen])[-most:]
    labels = [e.labels for e in chosen if e.labels is not None]
    return smashed, torch.cat(labels)[-most:] if len(labels) == len(chosen) else None


def train_shadow(
    observation: Observation,
    knowledge: Knowledge,
    budget: Budget,
    steps: int,
    seed: int,
    weights: Weights | None = None,
    number: int | None = None,
) -> nn.Module:
    """Train a front on auxiliary windows so that what it makes looks, and works, like what crossed.

    It must be of use to the server's trunk, which stays as it is: where the head is the client's, a head is trained
    along. And its smashed data must be distributed as those seen, class by class where labels are shared.

    Args:
        observation: of an adversary with smashed data and the server's weights.
        knowledge: an attacker who knows the defence puts it, and what it adds to the loss, behind the shadow.
        budget: one evaluation a step.
        steps: most of them.
        seed: of all.
        weights: of the aims.
        number: of the round to imitate.

    Returns:
        The front, frozen.

    Source: Gao & Zhang (2023), PCAT: Functionality and data stealing from split learning by pseudo-client attack,
    section 4, for the pseudo-client behind the server's model; Xu et al. (2024), A stealthy wolf in sheep's clothing
    (FORA), section 4.2, for matching distributions by multi-kernel discrepancy.
    """
    aims = weights or Weights()
    with torch_seeded(seed, "shadow"):
        front, _ = split_front(observation, knowledge)
        server = server_half(observation, knowledge, number)
        head: nn.Module = nn.Identity() if observation.label_sharing else knowledge.make_head()
    smashed, labels = seen_smashed(observation, number)
    parts = divide(knowledge, seed)
    x, y = knowledge.x[parts.train], knowledge.y[parts.train]
    optimizer = torch.optim.Adam([*front.parameters(), *head.parameters()], lr=2e-3)
    generator = torch_generator(seed, "shadow batches")
    defence = knowledge.defence if isinstance(knowledge.defence, Defence) else None
    front.train()
    if defence is not None:
        defence.stand_behind(front)
    with torch_seeded(seed, "shadow noise"):
        for _ in range(steps):
            if not budget.spend():
                break
            batch = torch.randint(len(x), (min(BATCH, len(x)),), generator=generator)
            real = _alike(labels, y[batch], smashed, generator)
            made = front(x[batch])
            sent = made if defence is None else defence(made, x[batch])
            loss = aims.task * nn.functional.cross_entropy(head(server(sent)), y[batch])
            if aims.match:
                loss = loss + aims.match * mmd(sent, smashed[real])
            if defence is not None:
                penalty = defence.penalty(x[batch], made)
                loss = loss if penalty is None else loss + penalty
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
    return front.train().requires_grad_(False)


def _alike(labels: Tensor | None, y: Tensor, smashed: Tensor, generator: torch.Generator) -> Tensor:
    """Draw rows of smashed data, of the classes ``y`` where labels are known."""
    if labels is None:
        return torch.randint(len(smashed), (len(y),), generator=generator)
    places = []
    for k in y.tolist():
        of_class = (labels == k).nonzero()[:, 0]
        among = of_class if len(of_class) else torch.arange(len(smashed))
        places.append(int(among[torch.randint(len(among), (1,), generator=generator)]))
    return torch.tensor(places)


def mmd(a: Tensor, b: Tensor) -> Tensor:
    """Return the squared maximum mean discrepancy with Gaussian kernels of five widths, biased, a scalar.

    Args:
        a, b: ``(b, ...)`` rows.

    Source: Long et al. (2015), Learning transferable features with deep adaptation networks, section 4; the widths
    are 2^-3 to 2^1 times the mean squared distance, as in Xu et al. (2024), FORA.
    """
    both = torch.cat([a.flatten(1), b.flatten(1)])
    square = (both.square().sum(1)[:, None] + both.square().sum(1)[None] - 2 * both @ both.T).clamp_min(0)
    width = square.detach().sum() / (len(both) ** 2 - len(both))
    kernel = sum(torch.exp(-square / (width.clamp_min(1e-12) * 2.0**i)) for i in range(-3, 2))
    assert isinstance(kernel, Tensor)
    n = len(a)
    return kernel[:n, :n].mean() + kernel[n:, n:].mean() - 2 * kernel[:n, n:].mean()


def defended(encode: Encode, front: nn.Module, knowledge: Knowledge, releases: float = 1.0) -> Encode:
    """Return what makes smashed data as they cross: through the defence that the attacker knows, if it does.

    Args:
        encode: windows to smashed data.
        front: the module that does it, for a defence that depends on it.
        knowledge: of the attacker.
        releases: how many releases are averaged, as ``Averaged.effective`` counts them.
    """
    defence = knowledge.defence
    if defence is None:
        return encode
    n = max(1, round(releases))
    if isinstance(defence, Defence):
        defence.stand_behind(front)

    def crossing(x: Tensor) -> Tensor:
        smashed = encode(x)
        return torch.stack([defence(smashed, x) for _ in range(n)]).mean(dim=0)

    return crossing
