"""A network behind the scaling of its windows, where each window is scaled by itself."""

from torch import Tensor, nn


class Standardised(nn.Module):
    """Standardises each channel of each window, then asks the network.

    An attacker changes the signal, not what the network is given: where windows are scaled each by itself, a change of
    their level or size is scaled away again. Windows that are standardised already come through unchanged.

    Args:
        network: windows ``(b, n_chans, n_times)`` to logits.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``(b, n_outputs)``."""
        centred = x - x.mean(dim=2, keepdim=True)
        spread = (centred.square().mean(dim=2, keepdim=True) + 1e-12).sqrt()
        logits: Tensor = self.network(centred / spread)
        return logits
