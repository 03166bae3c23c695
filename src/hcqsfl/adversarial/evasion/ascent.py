"""The two ways to climb a loss inside a region: with a fixed step, and with one that adapts."""

import torch
from torch import Tensor

from hcqsfl.adversarial.evasion.attack import Best, Effort
from hcqsfl.adversarial.evasion.goal import Goal
from hcqsfl.adversarial.evasion.oracle import Oracle
from hcqsfl.adversarial.evasion.region import Region
from hcqsfl.randomness import torch_generator


def fixed_step(
    oracle: Oracle, region: Region, goal: Goal, effort: Effort, seed: int, kind: str, rate: float | None = None
) -> Tensor:
    """Climb by the sign of the gradient, from each window and then from random places.

    A window is left alone as soon as it fools the model; the others keep the input of highest loss.

    Args:
        oracle, region, goal, effort, seed: as an attack is given them.
        kind: of the loss.
        rate: step as a share of the radius; ``2.5 / steps`` unless given.

    Returns:
        ``(n, n_chans, n_times)``.

    Source: Madry et al. (2018), Towards deep learning models resistant to adversarial attacks, section 2.1 and, for the
    step, appendix B of their MNIST challenge (2.5 times the radius over the number of steps).
    """
    best, generator = Best(region), torch_generator(seed, "evasion", "start")
    step = region.epsilon * (2.5 / effort.steps if rate is None else rate)
    for restart in range(effort.restarts):
        rows = best.left
        if not len(rows):
            break
        u = region.draw(rows, generator) if restart else region.start(rows)
        u = region.project(u, rows)
        for _ in range(effort.steps):
            x = region.place(u, rows)
            loss, slope, fooled = oracle.ascend(x, goal, rows, kind)
            best.offer(rows, x, loss, fooled)
            if fooled.any():
                rows, u, slope = rows[~fooled], u[~fooled], slope[~fooled]
            if not len(rows):
                break
            u = region.project(u + step * region.pull(slope, rows).sign(), rows)
        _offer_last(oracle, region, goal, rows, u, kind, best)
    return best.x


def _offer_last(oracle: Oracle, region: Region, goal: Goal, rows: Tensor, u: Tensor, kind: str, best: Best) -> None:
    if len(rows):
        x = region.place(u, rows)
        logits = oracle.scores(x)
        best.offer(rows, x, goal.loss(kind, logits, rows), goal.fooled(logits, rows))


def checkpoints(steps: int) -> list[int]:
    """Return the steps at which an adaptive ascent looks back.

    Source: Croce & Hein (2020), section 3: ``p0 = 0, p1 = 0.22, p(j+1) = p(j) + max(p(j) - p(j-1) - 0.03, 0.06)``.
    """
    shares = [0.0, 0.22]
    while shares[-1] < 1:
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06))
    return [-(-int(share * steps * 10**9) // 10**9) for share in shares if share <= 1]


def adaptive_step(
    oracle: Oracle, region: Region, goal: Goal, effort: Effort, seed: int, kind: str, best: Best | None = None
) -> Tensor:
    """Climb with momentum and, window by window, a step that halves where progress stalls (AutoPGD).

    Args:
        oracle, region, goal, effort, seed: as an attack is given them.
        kind: of the loss.
        best: what was found before, if anything, to go on from; only windows that do not fool the model yet are moved.

    Returns:
        ``(n, n_chans, n_times)``.

    Source: Croce & Hein (2020), Reliable evaluation of adversarial robustness with an ensemble of diverse
    parameter-free attacks, algorithm 1 (momentum 0.75, first step twice the radius, progress in 0.75 of the steps).
    """
    best, generator = best or Best(region), torch_generator(seed, "evasion", "start")
    for restart in range(effort.restarts):
        rows = best.left
        if not len(rows):
            break
        u = region.draw(rows, generator) if restart else region.start(rows)
        _one_adaptive(oracle, region, goal, effort.steps, kind, rows, region.project(u, rows), best)
    return best.x


def _one_adaptive(
    oracle: Oracle, region: Region, goal: Goal, steps: int, kind: str, rows: Tensor, u: Tensor, best: Best
) -> None:
    marks = checkpoints(steps)
    shape = (-1, *(1,) * (u.dim() - 1))
    x = region.place(u, rows)
    loss, slope, fooled = oracle.ascend(x, goal, rows, kind)
    best.offer(rows, x, loss, fooled)
    before, top, top_slope, top_loss = u.clone(), u.clone(), slope.clone(), loss.clone()
    size = torch.full_like(loss, 2 * region.epsilon)
    rises, halved, mark_loss = torch.zeros_like(loss), torch.ones_like(fooled), loss.clone()
    last = 0
    for k in range(1, steps + 1):
        if fooled.any():
            keep = ~fooled
            rows, u, before, top, slope, top_slope = (t[keep] for t in (rows, u, before, top, slope, top_slope))
            loss, top_loss, size, rises, halved, mark_loss = (
                t[keep] for t in (loss, top_loss, size, rises, halved, mark_loss)
            )
        if not len(rows):
            return
        straight = region.project(u + size.view(shape) * region.pull(slope, rows).sign(), rows)
        momentum = 1.0 if k == 1 else 0.75
        ahead = region.project(u + momentum * (straight - u) + (1 - momentum) * (u - before), rows)
        before, u = u, ahead
        if k == steps:  # the last step needs no gradient to be judged
            _offer_last(oracle, region, goal, rows, u, kind, best)
            return
        x = region.place(u, rows)
        now, slope, fooled = oracle.ascend(x, goal, rows, kind)
        best.offer(rows, x, now, fooled)
        rises += now > loss
        loss = now
        higher = now > top_loss
        top[higher], top_slope[higher], top_loss[higher] = u[higher], slope[higher], now[higher]
        if k in marks:
            stalled = (rises < 0.75 * (k - last)) | (~halved & (top_loss <= mark_loss))
            size[stalled] /= 2
            u, slope = u.clone(), slope.clone()
            u[stalled], slope[stalled] = top[stalled], top_slope[stalled]
            before = before.clone()
            before[stalled] = top[stalled]
            loss = torch.where(stalled, top_loss, loss)
            rises, halved, mark_loss, last = torch.zeros_like(rises), stalled, top_loss.clone(), k
