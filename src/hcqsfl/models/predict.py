"""Apply trained networks."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hcqsfl.models.devices import device_of
from hcqsfl.randomness import torch_generator


@torch.no_grad()
def predict(network: nn.Module, x: Tensor, batch_size: int = 512) -> Tensor:
    """Return logits ``(n, n_outputs)`` of windows ``(n, n_chans, n_times)``, in evaluation mode.

    The network may be on another device than the windows; the logits are where these are.
    """
    network.eval()
    device = device_of(network)
    return torch.cat([network(batch.to(device)).to(x.device) for batch in x.split(batch_size)])


def predict_by_lot(networks: Sequence[nn.Module], x: Tensor, seed: int, batch_size: int = 512) -> Tensor:
    """Return logits ``(n, n_outputs)``, each window's from one of the networks, drawn.

    With several networks (each client's own) this is what a client can expect of its own, not of an ensemble that
    nobody has.
    """
    if len(networks) == 1:
        return predict(networks[0], x, batch_size)
    lot = torch.randint(len(networks), (len(x),), generator=torch_generator(seed, "lot"))
    logits = [predict(network, x, batch_size) for network in networks]
    return torch.stack(logits)[lot, torch.arange(len(x))]
