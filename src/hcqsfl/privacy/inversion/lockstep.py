"""Several minimisations at once, each by an L-BFGS of its own, with what they ask for computed together."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

import torch
from torch import Tensor

Losses = Callable[[Tensor, Tensor], Tensor]
"""Places ``(v,)`` of some of the problems and their points ``(v, p)`` to losses ``(v,)``, differentiable."""


def minimise(losses: Losses, starts: Tensor, evaluations: int, spend: Callable[[int], object]) -> Tensor:
    """Return where torch's L-BFGS with strong Wolfe line search comes from each of ``starts (u, p)``, ``(u, p)``.

    Every problem has its own curvature, line search and end, as if it were alone. Each runs in a thread that waits
    whenever it asks for a slope; once all that still run have asked, one call answers them, always in the order of
    the problems.

    Args:
        losses: what is minimised.
        starts: of the points.
        evaluations: of one problem; its last line search may go beyond.
        spend: told the number of problems evaluated at each call.
    """
    asked: SimpleQueue[tuple[int, Tensor | None]] = SimpleQueue()
    answers: list[SimpleQueue[tuple[Tensor, Tensor] | None]] = [SimpleQueue() for _ in starts]

    def run(i: int) -> Tensor:
        point = starts[i].clone().requires_grad_()
        optimizer = torch.optim.LBFGS(
            [point], lr=1.0, max_iter=evaluations, max_eval=evaluations, line_search_fn="strong_wolfe"
        )

        def closure() -> Tensor:
            asked.put((i, point.detach().clone()))
            answer = answers[i].get()
            if answer is None:
                raise RuntimeError("the evaluation of the other problems failed")
            loss, point.grad = answer
            return loss

        try:
            optimizer.step(closure)
        finally:
            asked.put((i, None))
        return point.detach()

    with ThreadPoolExecutor(len(starts)) as pool:
        threads = [pool.submit(run, i) for i in range(len(starts))]
        running = list(range(len(starts)))
        try:
            while running:
                received = dict(asked.get() for _ in running)
                wanted = {i: point for i in running if (point := received[i]) is not None}
                running = list(wanted)
                if not running:
                    break
                spend(len(running))
                points = torch.stack(list(wanted.values())).requires_grad_()
                found = losses(torch.tensor(running), points)
                (slopes,) = torch.autograd.grad(found.sum(), points)
                for i, loss, slope in zip(running, found.detach(), slopes, strict=True):
                    answers[i].put((loss, slope))
        except BaseException:
            for each in answers:
                each.put(None)
            raise
        return torch.stack([thread.result() for thread in threads])
