"""Decoders: from smashed data back to windows, trained on windows of other people."""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from hcqsfl.privacy.attack import Budget, Knowledge
from hcqsfl.privacy.inversion.halves import Encode
from hcqsfl.privacy.plateau import Plateau
from hcqsfl.randomness import numpy_generator, torch_generator, torch_seeded

WIDTHS = (8, 16, 32)
"""Capacities that are tried: filters at full length."""
BATCH = 32


class Decoder(nn.Module):
    """A mirror of a convolutional front; of a dense one where a window is one row of a table.

    Legend: b windows, c channels, t times, w width::

        smashed (b, n) -linear-> (b, 2w, ceil(t/8)) -[double, conv] x 3-> (b, w, t) -conv-> (b, c, t)
        smashed (b, k, s) -conv-> (b, 2w, s) -[double, conv] until t-> (b, w, t) -conv-> (b, c, t)
        t = 1: smashed -dense, dense, linear-> (b, c, 1)

    Args:
        smashed: shape of one row of smashed data.
        n_chans, n_times: of a window.
        width: filters, or eighths of the units of a dense layer.
    """

    level: Tensor
    scale: Tensor

    def __init__(self, smashed: Sequence[int], n_chans: int, n_times: int, width: int = 32) -> None:
        super().__init__()
        self.n_chans, self.n_times = n_chans, n_times
        self.register_buffer("level", torch.zeros(tuple(smashed)))
        self.register_buffer("scale", torch.ones(tuple(smashed)))
        n = math.prod(smashed)
        self.net: nn.Sequential
        if n_times == 1:
            units = 8 * width
            self.net = nn.Sequential(
                nn.Flatten(),
                _dense(n, units),
                _dense(units, units),
                nn.Linear(units, n_chans),
                nn.Unflatten(1, (-1, 1)),
            )
            return
        start = -(-n_times // 8) if len(smashed) == 1 else smashed[1]
        doublings = max(0, math.ceil(math.log2(n_times / start)))
        if len(smashed) == 1:
            self.net = nn.Sequential(nn.Linear(n, 2 * width * start), nn.GELU(), nn.Unflatten(1, (2 * width, start)))
        else:
            self.net = nn.Sequential(_conv(smashed[0], 2 * width))
        for _ in range(doublings - 1):
            self.net.extend([_conv(2 * width, 2 * width), nn.Upsample(scale_factor=2)])
        self.net.extend([nn.Upsample(n_times, mode="linear"), _conv(2 * width, width)])
        self.net.append(nn.Conv1d(width, n_chans, 5, padding=2))

    def standardise(self, smashed: Tensor) -> None:
        """Take the mean and deviation of each number of ``smashed (m, ...)`` as those of the input."""
        self.level.copy_(smashed.mean(dim=0))
        self.scale.copy_(smashed.std(dim=0, correction=0).clamp_min(1e-4))

    def forward(self, smashed: Tensor) -> Tensor:
        """Return windows ``(b, n_chans, n_times)``."""
        found: Tensor = self.net((smashed - self.level) / self.scale)
        return found


def _dense(n_in: int, n_out: int) -> nn.Module:
    return nn.Sequential(nn.Linear(n_in, n_out), nn.LayerNorm(n_out), nn.GELU())


def _conv(n_in: int, n_out: int) -> nn.Module:
    return nn.Sequential(nn.Conv1d(n_in, n_out, 5, padding=2), nn.GroupNorm(4, n_out), nn.GELU())


@dataclass(frozen=True, eq=False)
class Parts:
    """Auxiliary windows in two: what is trained on, and what tells when to stop.

    Attributes:
        train, validation: places among ``Knowledge.x``.
    """

    train: Tensor
    validation: Tensor


def divide(knowledge: Knowledge, seed: int, share: float = 0.2) -> Parts:
    """Hold some auxiliary people back; where there are fewer than three, some windows.

    Raises:
        ValueError: there are fewer than 10 auxiliary windows.
    """
    n = len(knowledge.x)
    if n < 10:
        raise ValueError(f"an attack that trains on auxiliary windows needs at least 10 of them; this one has {n}")
    rng = numpy_generator(seed, "auxiliary")
    people = sorted(set(knowledge.subject))
    if len(people) >= 3:
        held = set(rng.permutation(people)[: max(1, round(share * len(people)))].tolist())
        inside = np.array([who in held for who in knowledge.subject])
    else:
        inside = np.zeros(n, dtype=bool)
        inside[rng.permutation(n)[: max(1, round(share * n))]] = True
    return Parts(torch.from_numpy(np.flatnonzero(~inside)), torch.from_numpy(np.flatnonzero(inside)))


@dataclass(eq=False)
class Fitted:
    """A decoder that was trained.

    Attributes:
        decoder: as where validation was best.
        loss: its mean squared error on the auxiliary windows held back.
        steps: that it took.
        plateau: whether training ended because validation did not improve, rather than because the budget did.
    """

    decoder: nn.Module
    loss: float
    steps: int
    plateau: bool


def fit(
    decoder: nn.Module,
    encode: Encode,
    x: Tensor,
    parts: Parts,
    budget: Budget,
    steps: int,
    seed: int,
    *,
    learning_rate: float = 2e-3,
    patience: int = 6,
    every: int = 25,
) -> Fitted:
    """Train a decoder to undo ``encode``, until the windows held back gain nothing or the budget ends.

    Args:
        decoder: trained in place.
        encode: windows to smashed data; may draw noise, and draws it anew for every batch.
        x: ``(m, n_chans, n_times)`` auxiliary windows.
        parts: what to train on, and what to hold back.
        budget: each batch is one evaluation, and so is each look at the windows held back.
        steps: most batches.
        seed: of the batches.
        learning_rate: of Adam; falls along a cosine.
        patience: looks without a gain of 0.5 % after which to stop.
        every: batches from look to look.
    """
    generator = torch_generator(seed, "decoder batches")
    optimizer = torch.optim.Adam(decoder.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps, 1), learning_rate / 20)
    train = x[parts.train]
    held, with_noise = x[parts.validation[:512]], torch_generator(seed, "validation noise").initial_seed()
    best, kept, done = math.inf, copy.deepcopy(decoder.state_dict()), 0
    plateau = Plateau(span=1, patience=patience)

    def look() -> float:
        with torch.no_grad(), torch_seeded(with_noise, "validation"):
            decoder.eval()
            return float(nn.functional.mse_loss(decoder(encode(held)), held))

    while done < steps and budget.spend():
        decoder.train()
        batch = varied(train, min(BATCH, len(train)), generator)
        with torch.no_grad():
            smashed = encode(batch)
        optimizer.zero_grad(set_to_none=True)
        loss = nn.functional.mse_loss(decoder(smashed), batch)
        loss.backward()
        nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        done += 1
        if done % every and done < steps:
            continue
        if not budget.spend():
            break
        found = look()
        if found < best:
            best, kept = found, copy.deepcopy(decoder.state_dict())
        if plateau(found):
            break
    if best == math.inf:
        best = look()
    else:
        decoder.load_state_dict(kept)
    return Fitted(decoder.eval(), best, done, plateau.reached)


def varied(x: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Draw ``n`` windows of ``x (m, n_chans, n_times)``, half of them changed, so that a few people stand for many.

    Of a signal, levels and amplitudes change, channels come from different windows, and the window begins elsewhere.
    Rows of a table stay what they are.
    """
    drawn = x[torch.randint(len(x), (n,), generator=generator)]
    if x.shape[2] == 1:
        return drawn
    half, n_chans = n // 2, x.shape[1]
    if not half:
        return drawn
    source = torch.randint(len(x), (half, n_chans), generator=generator)
    made = x[source, torch.arange(n_chans)]  # (half, c, t)
    shift = int(torch.randint(x.shape[2], (1,), generator=generator))
    made = torch.roll(made, shift, dims=2)
    spread = x.std(dim=(0, 2), correction=0)[None, :, None]
    level = torch.randn(half, n_chans, 1, generator=generator) * spread
    gain = torch.exp(0.3 * torch.randn(half, n_chans, 1, generator=generator))
    mean = made.mean(dim=2, keepdim=True)
    return torch.cat([drawn[half:], (made - mean) * gain + mean + level])


def tuned(
    encode: Encode, smashed: Sequence[int], knowledge: Knowledge, budget: Budget, share: int, seed: int
) -> tuple[Fitted, dict[str, float]]:
    """Choose a decoder's capacity and learning rate on the auxiliary windows, then train it until it gains nothing.

    A quarter of the share goes into the choice, an equal part into each trial.

    Args:
        encode: windows to smashed data.
        smashed: shape of one row.
        knowledge: whose windows; ``extra["widths"]`` fixes the capacities tried.
        budget: its ``trials`` say how many settings are tried.
        share: of the budget's evaluations that may be spent.
        seed: of all.

    Returns:
        The decoder, and for each capacity that was tried the best error on the windows held back.
    """
    parts = divide(knowledge, seed)
    widths = tuple(knowledge.extra.get("widths", WIDTHS))
    settings = [(width, rate) for rate in (2e-3, 5e-4, 5e-3) for width in _from_middle(widths)][: budget.trials]
    n_chans, n_times = knowledge.x.shape[1:]

    def fresh(width: int) -> Decoder:
        with torch_seeded(seed, "decoder", width):
            made = Decoder(smashed, n_chans, n_times, width)
        with torch.no_grad(), torch_seeded(seed, "standardise"):
            made.standardise(encode(knowledge.x[parts.train[:1024]]))
        return made

    tried: dict[str, float] = {}
    chosen = settings[0]
    if len(settings) > 1:
        steps = max(1, share // 4 // len(settings))
        losses = {}
        for width, rate in settings:
            losses[width, rate] = fit(
                fresh(width), encode, knowledge.x, parts, budget, steps, seed, learning_rate=rate, every=steps
            ).loss
        chosen = min(losses, key=lambda setting: losses[setting])
        for (width, _), loss in losses.items():
            tried[str(width)] = min(loss, tried.get(str(width), math.inf))
    remaining = share - (share // 4 if len(settings) > 1 else 0)
    with torch_seeded(seed, "training noise"):
        found = fit(fresh(chosen[0]), encode, knowledge.x, parts, budget, remaining, seed, learning_rate=chosen[1])
    return found, tried


def _from_middle(widths: tuple[int, ...]) -> list[int]:
    middle = len(widths) // 2
    return sorted(widths, key=lambda width: abs(widths.index(width) - middle))


@torch.no_grad()
def decode(decoder: nn.Module, smashed: Tensor, knowledge: Knowledge) -> Tensor:
    """Return the windows that a decoder makes of ``smashed``; discrete columns take a value that they can have."""
    found = torch.cat([decoder.eval()(part) for part in smashed.split(512)])
    return snapped(found, knowledge.x) if found.shape[2] == 1 else found


def snapped(found: Tensor, x: Tensor, most: int = 10) -> Tensor:
    """Set each column of rows ``(n, n_chans, 1)`` that has few values in ``x`` to the nearest of them."""
    made = found.clone()
    for i in range(found.shape[1]):
        values = x[:, i, 0].unique()
        if len(values) <= most:
            made[:, i, 0] = values[(found[:, i, :] - values[None]).abs().argmin(dim=1)]
    return made
