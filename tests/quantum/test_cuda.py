"""The layer on a GPU equals the layer on the CPU."""

import pytest
import torch

from hcqsfl.quantum.circuits import CIRCUITS, make
from hcqsfl.quantum.layer import QuantumLayer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.complex128, 1e-10), (torch.complex64, 3e-5)])
@pytest.mark.parametrize("name", sorted(CIRCUITS))
def test_values_and_gradients_are_the_cpus(name: str, dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(3)
    circuit = make(name, 2 if name == "hqsl" else 5, 2)
    cpu = QuantumLayer(circuit, dtype=dtype)
    gpu = QuantumLayer(circuit, dtype=dtype).cuda()
    gpu.load_state_dict(cpu.state_dict())
    inputs = torch.randn(33, circuit.n_inputs, dtype=cpu.weights.dtype)
    found = []
    for layer, device in ((cpu, "cpu"), (gpu, "cuda")):
        leaf = inputs.to(device).requires_grad_()
        values = layer(leaf)
        assert values.device.type == device
        gradients = torch.autograd.grad(values.square().sum(), [leaf, layer.weights])
        found.append([tensor.detach().cpu() for tensor in (values, *gradients)])
    for ours, theirs in zip(*found, strict=True):
        assert ((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1)) < tolerance


def test_compiled_refuses_a_gpu() -> None:
    layer = QuantumLayer(make("strongly_entangling", 2, 1), "compiled").cuda()
    with pytest.raises(ValueError, match="'compiled' runs on the CPU, not on cuda"):
        layer(torch.zeros(1, 2, device="cuda"))
    assert QuantumLayer(make("strongly_entangling", 2, 1)).cuda().backend_for(torch.zeros(1, 2).cuda()) == "fused"


def test_a_gpu_gives_the_same_bytes_twice() -> None:
    layer = QuantumLayer(make("strongly_entangling", 6, 3)).cuda()
    inputs = torch.randn(64, 6, device="cuda")
    runs = [torch.autograd.grad(layer(inputs).sum(), layer.weights)[0] for _ in range(2)]
    assert torch.equal(*runs)


def test_per_sample_gradients_are_the_cpus() -> None:
    layer = QuantumLayer(make("strongly_entangling", 4, 2), dtype=torch.complex128)
    inputs, slopes = torch.randn(9, 4, dtype=torch.float64), torch.randn(9, 4, dtype=torch.float64)
    expected = layer.per_sample_gradients(inputs, slopes)
    found = layer.cuda().per_sample_gradients(inputs.cuda(), slopes.cuda()).cpu()
    assert (found - expected).abs().max() < 1e-10
