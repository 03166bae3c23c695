"""Moving an optimiser at the cost of what it does."""

from torch.optim import Optimizer
from torch.optim import optimizer as everywhere


def take_step(optimizer: Optimizer) -> None:
    """Take ``optimizer.step()``, past its label for the profiler, which costs a tenth of a small network's step.

    An optimiser that somebody hooked into (step hooks, a scheduler, a class with a way of its own) is asked as usual.
    """
    labelled = type(optimizer).step
    plain = getattr(labelled, "__wrapped__", None) if getattr(labelled, "hooked", False) else None
    if plain is None or "step" in vars(optimizer) or _is_hooked(optimizer):
        optimizer.step()
    else:
        plain(optimizer)


def _is_hooked(optimizer: Optimizer) -> bool:
    """Return whether somebody wants to know of each step; so it seems where torch keeps its hooks elsewhere."""
    try:
        return bool(
            optimizer._optimizer_step_pre_hooks
            or optimizer._optimizer_step_post_hooks
            or everywhere._global_optimizer_pre_hooks
            or everywhere._global_optimizer_post_hooks
        )
    except AttributeError:
        return True
