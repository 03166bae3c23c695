"""The client's half of the network above the cut: from features to logits."""

from torch import nn


def linear_head(n_features: int, n_outputs: int) -> nn.Module:
    """Return a head: ``(b, n_features)`` to logits ``(b, n_outputs)``.

    The non-linearity keeps it from folding into the trunk's last linear layer.
    """
    return nn.Sequential(nn.GELU(), nn.Linear(n_features, n_outputs))
