"""Moving an optimiser at the cost of what it does."""

from torch.optim import Optimizer
from torch.optim import optimizer as everywhere


def take_step(optimizer: Optimizer) -> None:
    """Take ``optimizer.step()``, past its label for the profiler, which costs a tenth of a small network's step.

    An optimiser that somebody hooked into (step hooks, a scheduler, a class with a way of its own) is asked as usual.
    """
    labelled = type(optimizer).step
    looked_at = (
        "step" in vars(optimizer)
        or optimizer._optimizer_step_pre_hooks
        or optimizer._optimizer_step_post_hooks
        or everywhere._global_optimizer_pre_hooks
        or everywhere._global_optimizer_post_hooks
    )
    if looked_at or not getattr(labelled, "hooked", False):
        optimizer.step()
    else:
        labelled.__wrapped__(optimizer)  # type: ignore[attr-defined]
