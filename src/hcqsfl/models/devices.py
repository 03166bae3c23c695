"""Where a network computes: on the processor, or on a graphics card."""

import torch
from torch import nn


def device(name: str) -> torch.device:
    """Return a device by name, set to compute as a processor does: in full float32, the same bits each time.

    Args:
        name: ``"cpu"``, ``"cuda"`` or one of several, such as ``"cuda:1"``.

    Raises:
        ValueError: there is no such device here.
    """
    here = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if name not in here and not (name == "cuda" and len(here) > 1):
        raise ValueError(f"device {name!r}: PyTorch {torch.__version__} finds {', '.join(here)} here")
    if name != "cpu":
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    return torch.device(name)


def device_of(network: nn.Module) -> torch.device:
    """Return where a network's parameters are; the processor if it has none."""
    parameter = next(network.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device
