"""Error feedback: what a codec lost of one gradient is added to the next."""

from collections.abc import Mapping

import torch
from torch import Tensor

from hcqsfl.split.codecs.codec import Codec


class ErrorFeedback(Codec):
    """Adds what another codec lost so far before it encodes, so that over many steps nothing is lost.

    A row of ``(b, n)`` is a different window in every batch, and the last batch is smaller; what can be owed from one
    step to the next is each column's sum over the rows. It is kept as ``(n,)`` and spread evenly over the rows of the
    next batch, so that the sums of all that was decoded differ from the sums of all that was encoded by what is owed
    now. Decoding is that of the inner codec. Each client, direction and tensor name owes for itself: an object serves
    one client at one end.

    It is meant for gradients: forward activations are not summed, so there is nothing to make good on.

    Args:
        codec: what encodes.

    Source: Seide et al. (2014), 1-bit stochastic gradient descent, section 3; Karimireddy et al. (2019), Error feedback
    fixes SignSGD and other gradient compression schemes, algorithm 2.
    """

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self.name = codec.name
        self._owed: dict[str, Tensor] = {}

    def encode(self, name: str, tensor: Tensor, *, training: bool = True) -> dict[str, Tensor]:
        """Return what the inner codec makes of the tensor and what is owed."""
        if not training or tensor.ndim != 2 or not len(tensor):
            return self.codec.encode(name, tensor, training=training)
        x = tensor.detach()
        owed = self._owed.get(name)
        if owed is not None:
            if owed.shape != x.shape[1:]:
                raise ValueError(
                    f"error feedback owes {len(owed)} columns of {name}, and {x.shape[1]} are to be sent; each client "
                    "needs an object of its own"
                )
            x = x + (owed / len(x)).to(x.dtype)
        sent = self.codec.encode(name, x, training=True)
        decoded = self.codec.decode(name, sent)
        asked = tensor.detach().to(torch.float64).sum(dim=0) + (0 if owed is None else owed)
        self._owed[name] = asked - decoded.to(torch.float64).sum(dim=0)
        return sent

    def decode(self, name: str, tensors: Mapping[str, Tensor]) -> Tensor:
        """Return what the inner codec decodes."""
        return self.codec.decode(name, tensors)

    def tensors(self) -> dict[str, Tensor]:
        """Return what is owed as ``owed/gradient``, and what the inner codec keeps as ``codec/...``."""
        owed = {f"owed/{name}": tensor.clone() for name, tensor in self._owed.items()}
        return owed | {f"codec/{name}": tensor for name, tensor in self.codec.tensors().items()}

    def load_tensors(self, held: Mapping[str, Tensor]) -> None:
        """Go back to where ``tensors`` was taken."""
        for key, tensor in held.items():
            if not key.startswith(("owed/", "codec/")) or (key.startswith("owed/") and tensor.ndim != 1):
                raise ValueError(f"the checkpoint is of another codec: error feedback keeps no {key!r}")
        self.codec.load_tensors({k.removeprefix("codec/"): t for k, t in held.items() if k.startswith("codec/")})
        self._owed = {k.removeprefix("owed/"): t.clone() for k, t in held.items() if k.startswith("owed/")}
