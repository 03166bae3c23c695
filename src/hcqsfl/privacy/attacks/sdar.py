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
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hcqsfl.models.defence import Defence
from hcqsfl.privacy.attack import Attack, Budget, Guess, Knowledge
from hcqsfl.privacy.inversion.critic import Critic, fooled, tell_apart
from hcqsfl.privacy.inversion.decoder import BATCH, Decoder, divide, snapped
from hcqsfl.privacy.inversion.halves import server_half, smashed_shape, split_front
from hcqsfl.privacy.inversion.releases import averaged
from hcqsfl.privacy.inversion.shadow import defended, seen_smashed, train_shadow
from hcqsfl.privacy.observation import Observation
from hcqsfl.randomness import numpy_generator, torch_generator, torch_seeded


@dataclass(frozen=True)
class Weights:
    """What is tuned; unless it is, what was published for CIFAR-10.

    Attributes:
        simulator, decoder: of the discriminators of smashed data and of windows.
        flip_rate: share of auxiliary labels set at random where clients keep theirs.
    """

    simulator: float = 0.02
    decoder: float = 1e-5
    flip_rate: float = 0.1


@dataclass(frozen=True, eq=False)
class Seen:
    """Smashed data ``(m, ...)`` that are attacked, and their labels where they are shared."""

    smashed: Tensor
    labels: Tensor | None


@dataclass(frozen=True, eq=False)
class Trained:
    """What came of an attack: a decoder, and from smashed data to logits."""

    decoder: nn.Module
    labelling: nn.Module
    n_classes: int

    @torch.no_grad()
    def windows(self, smashed: Tensor, labels: Tensor | None) -> Tensor:
        """Return ``(m, n_chans, n_times)``."""
        found: Tensor = self.decoder.eval()(_conditioned(smashed, _one_hot(labels, self.n_classes)))
        return found


def run(observation: Observation, knowledge: Knowledge, budget: Budget, seed: int) -> Guess:
    """Reconstruct the targets and, where clients keep labels, infer those too.

    With more than one trial, the weights are tuned on a victim of the attacker's own: a shadow of the clients' front
    that sends the windows of auxiliary people held back. An eighth of the budget makes it, a quarter goes into trials.
    """
    seen, shares = averaged(observation, knowledge), observation.label_sharing
    what = Seen(*seen_smashed(observation))
    tried: dict[str, float] = {}
    chosen = Weights()
    if budget.trials > 1:
        chosen, tried = _tuned(observation, knowledge, budget, seed)
    made = _trained(observation, knowledge, what, budget, budget.evaluations - budget.spent, chosen, seed)
    windows = made.windows(seen.smashed, observation.stacked("labels") if shares else None)
    windows = snapped(windows, knowledge.x) if windows.shape[2] == 1 else windows
    with torch.no_grad():
        inferred = None if shares else made.labelling(seen.smashed).softmax(dim=1)
    facts = {"weights": vars(chosen), "averaged": seen.effective, "tried": tried}
    return Guess(windows=windows, labels=inferred, facts=facts)


def settings(n: int, seed: int) -> list[Weights]:
    """Return ``n`` weights to try: those published, then some drawn evenly over the orders of magnitude around them."""
    rng = numpy_generator(seed, "sdar settings")
    drawn = [Weights(10 ** rng.uniform(-3, 0), 10 ** rng.uniform(-6, -2), rng.uniform(0, 0.3)) for _ in range(n - 1)]
    return [Weights(), *drawn]


def _tuned(
    observation: Observation, knowledge: Knowledge, budget: Budget, seed: int
) -> tuple[Weights, dict[str, float]]:
    """Return the weights that reconstruct the shadow victim best, and the error of each that was tried."""
    parts = divide(knowledge, seed)
    x, y = knowledge.x[parts.validation], knowledge.y[parts.validation]
    shadow = train_shadow(observation, knowledge, budget, max(1, budget.evaluations // 8), seed)
    with torch.no_grad(), torch_seeded(seed, "shadow victim"):
        sent = defended(shadow, shadow, knowledge)(x)
    labels = y if observation.label_sharing else None
    own, steps = Seen(sent, labels), max(1, budget.evaluations // 4 // budget.trials)
    candidates = settings(budget.trials, seed)
    errors = []
    for weights in candidates:
        made = _trained(observation, knowledge, own, budget, steps, weights, seed)
        errors.append(float(nn.functional.mse_loss(made.windows(sent, labels), x)))
    shown = [f"{w.simulator:.3g}, {w.decoder:.3g}, {w.flip_rate:.2g}" for w in candidates]
    return candidates[errors.index(min(errors))], dict(zip(shown, errors, strict=True))


def _trained(
    observation: Observation, knowledge: Knowledge, seen: Seen, budget: Budget, steps: int, weights: Weights, seed: int
) -> Trained:
    shape, shares = smashed_shape(observation), observation.label_sharing
    smashed, labels = seen.smashed, seen.labels
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
        for _ in range(steps):
            if not budget.spend():
                break
            batch = torch.randint(len(x), (n,), generator=generator)
            rows = torch.randint(len(smashed), (n,), generator=generator)
            xs, ys, z = x[batch], y[batch], smashed[rows]
            given = _one_hot(ys, n_classes)
            given_z = _one_hot(None if labels is None else labels[rows], n_classes)
            if not shares:
                flipped = torch.rand(n, generator=generator) < weights.flip_rate
                ys = torch.where(flipped, torch.randint(knowledge.n_outputs, (n,), generator=generator), ys)
            made = front(xs)
            sent = made if defence is None else defence(made, xs)
            alike = fooled(judges[0](sent, given))
            loss = nn.functional.cross_entropy(head(server(sent)), ys) + weights.simulator * alike
            penalty = None if defence is None else defence.penalty(xs, made)
            simulating.zero_grad(set_to_none=True)
            (loss if penalty is None else loss + penalty).backward()
            simulating.step()
            sent = sent.detach()
            tell_apart(judges[0], judging[0], z, sent, given_z, given)
            found = decoder(_conditioned(z, given_z))
            loss = nn.functional.mse_loss(decoder(_conditioned(sent, given)), xs)
            decoding.zero_grad(set_to_none=True)
            (loss + weights.decoder * fooled(judges[1](found, given_z))).backward()
            decoding.step()
            tell_apart(judges[1], judging[1], xs, found.detach(), given, given_z)
    return Trained(decoder, nn.Sequential(server, head), n_classes)


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
