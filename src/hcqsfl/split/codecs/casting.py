"""Codecs that keep every number, with as many bits as asked for."""

from collections.abc import Mapping

import torch
from torch import Tensor

from hcqsfl.split.codecs.codec import Codec, check_float32, check_size


class Plain(Codec):
    """Carries any tensor as it is, bit for bit, at no cost (``none``)."""

    name = "none"

    def encode(self, name: str, tensor: Tensor, *, training: bool = True) -> dict[str, Tensor]:
        """Return the tensor itself."""
        return {name: tensor}

    def decode(self, name: str, tensors: Mapping[str, Tensor]) -> Tensor:
        """Return the tensor itself."""
        if name not in tensors:
            raise ValueError(f"the tensor {name!r} did not come; what came holds {', '.join(sorted(tensors))}")
        return tensors[name]


class _Cast(Codec):
    dtype: torch.dtype

    def encode(self, name: str, tensor: Tensor, *, training: bool = True) -> dict[str, Tensor]:
        """Return the tensor in fewer bits, each number rounded to the nearest that they hold, of two the even one."""
        check_float32(self.name, name, tensor)
        short = tensor.detach().to(self.dtype)
        if not short.isfinite().all():
            largest = float(tensor.detach().abs().max())
            raise ValueError(
                f"{self.name} holds numbers up to {torch.finfo(self.dtype).max:g}, and the largest in {name} is "
                f"{largest:g}; choose the codec {'bfloat16' if self.dtype == torch.float16 else 'none'}"
            )
        return {name: short}

    def decode(self, name: str, tensors: Mapping[str, Tensor]) -> Tensor:
        """Return the tensor as float32."""
        if name not in tensors or tensors[name].dtype != self.dtype:
            came = tensors[name].dtype if name in tensors else "nothing"
            raise ValueError(f"{self.name} needs {name!r} as {self.dtype}; {came} came")
        check_size(self.name, tuple(tensors[name].shape))
        return tensors[name].to(torch.float32)


class Float16(_Cast):
    """Half as many bytes: IEEE binary16, 11 significant bits, up to 65504."""

    name = "float16"
    dtype = torch.float16


class BFloat16(_Cast):
    """Half as many bytes: 8 significant bits, with the range of float32."""

    name = "bfloat16"
    dtype = torch.bfloat16
