"""A3: a simulator of the clients' front and a decoder, both held to what crossed by adversaries of their own.

The simulator learns the task on auxiliary windows behind the server's own half; one discriminator must not tell its
smashed data from those seen. The decoder learns to undo the simulator; another must not tell what it makes of the
victims' smashed data from real windows. Where labels are shared, both are given the class. Where they are kept
(U-shaped), a head is simulated too, some auxiliary labels are flipped at random so that it does not overfit, and the
simulated head labels the victims' windows.

Source: Zhu et al. (2025), Passive inference attacks on split learning via adversarial regularization (SDAR), section
4.2 (vanilla; equations 3 to 8) and 4.3 (U-shaped, random label flipping).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hcqsfl.models.defence import Defence
from hcqsfl.privacy.attack import Attack, Budget, Guess, Knowledge
from hcqsfl.privacy.inversion.critic import Critic, fooled, tell_apart
from hcqsfl.privacy.inversion.decoder import BATCH, Decoder, divide, snapped
from hcqsfl.privacy.inversion.halves import server_half, smashed_shape, split_front
from hcqsfl.privacy.inversion.releases import averaged
from hcqsfl.privacy.inversion.shadow import seen_smashed
from hcqsfl.privacy.observation import Observation
from hcqsfl.randomness import torch_generator, torch_seeded

LAMBDA_SIMULATOR, LAMBDA_DECODER = 0.02, 1e-5
"""As published for CIFAR-10."""
FLIP_RATE = 0.1
"""Share of auxiliary labels set at random in the U-shaped attack."""


def run(observation: Observation, knowledge: Knowledge, budget: Budget, seed: int) -> Guess:
    """Reconstruct the targets and, where clients keep labels, infer those too.

    ``knowledge.extra``: ``lambdas``, weights of the two adversaries; ``flip_rate``.
    """
    lambdas = knowledge.extra.get("lambdas", (LAMBDA_SIMULATOR, LAMBDA_DECODER))
    seen = averaged(observation, knowledge)
    shape, shares = smashed_shape(observation), observation.label_sharing
    smashed, labels = seen_smashed(observation)
    x, y = (each[divide(knowledge, seed).train] for each in (knowledge.x, knowledge.y))
    n_classes = knowledge.n_outputs if shares else 0
    n_chans, n_times = knowledge.x.shape[1:]
    generator = torch_generator(seed, "sdar batches")
    defence = knowledge.defence if isinstance(knowledge.defence, Defence) else None
    with torch_seeded(seed, "sdar"):
        front, _ = split_front(observation, knowledge)
        server = server_half(observation, knowledge)
        head: nn.Module = nn.Identity() if shares else knowledge.make_head()
        decoder = Decoder(_widened(shape, n_classes), n_chans, n_times, 16)
        judges = Critic(shape, n_classes), Critic(knowledge.x.shape[1:], n_classes)
        decoder.standardise(_conditioned(smashed, _one_hot(labels, n_classes)))
        simulating = torch.optim.Adam([*front.parameters(), *head.parameters()], lr=1e-3)
        decoding = torch.optim.Adam(decoder.parameters(), lr=1e-3)
        judging = [torch.optim.Adam(judge.parameters(), lr=1e-4) for judge in judges]
        if defence is not None:
            defence.stand_behind(front)
        front.train()
        n = min(BATCH, len(x))
        while budget.spend():
            batch = torch.randint(len(x), (n,), generator=generator)
            rows = torch.randint(len(smashed), (n,), generator=generator)
            xs, ys, z = x[batch], y[batch], smashed[rows]
            given = _one_hot(ys, n_classes)
            given_z = _one_hot(None if labels is None else labels[rows], n_classes)
            if not shares:
                flipped = torch.rand(n, generator=generator) < float(knowledge.extra.get("flip_rate", FLIP_RATE))
                ys = torch.where(flipped, torch.randint(knowledge.n_outputs, (n,), generator=generator), ys)
            made = front(xs)
            sent = made if defence is None else defence(made, xs)
            loss = nn.functional.cross_entropy(head(server(sent)), ys) + lambdas[0] * fooled(judges[0](sent, given))
            penalty = None if defence is None else defence.penalty(xs, made)
            simulating.zero_grad(set_to_none=True)
            (loss if penalty is None else loss + penalty).backward()
            simulating.step()
            sent = sent.detach()
            tell_apart(judges[0], judging[0], z, sent, given_z, given)
            found = decoder(_conditioned(z, given_z))
            loss = nn.functional.mse_loss(decoder(_conditioned(sent, given)), xs)
            decoding.zero_grad(set_to_none=True)
            (loss + lambdas[1] * fooled(judges[1](found, given_z))).backward()
            decoding.step()
            tell_apart(judges[1], judging[1], xs, found.detach(), given, given_z)
    with torch.no_grad():
        told = _one_hot(observation.stacked("labels") if shares else None, n_classes)
        windows = decoder.eval()(_conditioned(seen.smashed, told))
        inferred = None if shares else head(server(seen.smashed)).softmax(dim=1)
    windows = snapped(windows, knowledge.x) if windows.shape[2] == 1 else windows
    return Guess(windows=windows, labels=inferred, facts={"lambdas": list(lambdas), "averaged": seen.effective})


def _widened(shape: Sequence[int], n_classes: int) -> list[int]:
    return [shape[0] + n_classes, *shape[1:]]


def _one_hot(labels: Tensor | None, n_classes: int) -> Tensor | None:
    return None if labels is None or not n_classes else nn.functional.one_hot(labels, n_classes).float()


def _conditioned(smashed: Tensor, given: Tensor | None) -> Tensor:
    """Return smashed data with the class beside them, as further numbers or filters."""
    if given is None:
        return smashed
    beside = given if smashed.ndim == 2 else given[:, :, None].expand(-1, -1, smashed.shape[2])
    return torch.cat([smashed, beside], dim=1)


ATTACK = Attack(
    id="A3",
    goal="windows",
    threats=("T1", "T6"),
    run=run,
    source="Zhu et al. (2025), Passive inference attacks on split learning via adversarial regularization, section 4",
    adaptive=True,
)
