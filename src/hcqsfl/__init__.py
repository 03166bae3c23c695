"""Hybrid classical-quantum split federated learning (HCQ-SFL) for Internet-of-Medical-Things data."""

__version__ = "0.1.0"
