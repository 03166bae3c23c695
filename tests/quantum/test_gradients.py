"""Gradients beyond one backward pass: sample by sample, of second order, and under torch.func."""

import copy
import importlib.util
import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from hcqsfl.quantum import backend as backends
from hcqsfl.quantum.backend.fused import fused_of
from hcqsfl.quantum.circuits import CIRCUITS, make
from hcqsfl.quantum.layer import QuantumLayer

OURS = ("fused", "compiled")
CASES = [
    ("strongly_entangling", 4, {}),
    ("data_reuploading", 3, {"trainable_frequencies": True}),
    ("amplitude", 3, {"n_inputs": 6}),
    ("tree", 4, {}),
]


def prepared(name: str, n_qubits: int, options: dict, backend: str) -> tuple[QuantumLayer, torch.Tensor, torch.Tensor]:
    torch.manual_seed(7)
    layer = QuantumLayer(make(name, n_qubits, 2, **options), backend, torch.complex128)
    inputs = torch.randn(19, layer.circuit.n_inputs, dtype=torch.float64)
    return layer, inputs, torch.randn(19, layer.circuit.n_observables, dtype=torch.float64)


@pytest.mark.parametrize("backend", ["pennylane", *OURS])
@pytest.mark.parametrize(("name", "n_qubits", "options"), CASES)
def test_per_sample_gradients_are_those_of_a_loop(name: str, n_qubits: int, options: dict, backend: str) -> None:
    layer, inputs, slopes = prepared(name, n_qubits, options, backend)
    found = layer.per_sample_gradients(inputs, slopes)
    for sample, slope, gradient in zip(inputs, slopes, found, strict=True):
        (alone,) = torch.autograd.grad((layer(sample[None])[0] * slope).sum(), layer.weights)
        assert alone.abs().max() > 1e-3
        assert (alone - gradient).abs().max() < 1e-10


@pytest.mark.skipif(importlib.util.find_spec("opacus") is None, reason="Opacus is not installed (the extra [privacy])")
@pytest.mark.parametrize("kept", ["by Opacus alone", "by our sampler"])
@pytest.mark.parametrize("backend", ["pennylane", *OURS])
@pytest.mark.parametrize("name", sorted(CIRCUITS))
def test_opacus_gives_the_per_sample_gradients_of_a_loop_and_never_zeros(name: str, backend: str, kept: str) -> None:
    from opacus import GradSampleModule

    from hcqsfl.privacy.dp_sgd import keep_samples

    if (backend, kept) == ("pennylane", "by Opacus alone"):
        pytest.skip("PennyLane has no rule for torch.func; our sampler stands in")
    layer, inputs, slopes = prepared(name, 2 if name == "hqsl" else 4, {}, backend)
    inputs, slopes = inputs[:5].requires_grad_(), slopes[:5]  # as smashed data do
    watched = copy.deepcopy(layer)
    if kept == "by our sampler":
        keep_samples(watched)
    else:
        samplers = {kind: rule for kind, rule in GradSampleModule.GRAD_SAMPLERS.items() if kind is not QuantumLayer}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(GradSampleModule, "GRAD_SAMPLERS", samplers)
            GradSampleModule(watched, loss_reduction="sum")
    (watched(inputs) * slopes).sum().backward()
    found = watched.weights.grad_sample
    for sample, slope, gradient in zip(inputs, slopes, found, strict=True):
        (alone,) = torch.autograd.grad((layer(sample[None])[0] * slope).sum(), layer.weights)
        assert alone.abs().max() > 1e-3
        assert (alone - gradient).abs().max() < 1e-6
    assert (found.flatten(1).abs().max(1).values > 1e-3).all()


@pytest.mark.parametrize("backend", OURS)
def test_torch_func_gives_the_per_sample_gradients(backend: str) -> None:
    layer, inputs, slopes = prepared("strongly_entangling", 3, {}, backend)

    def loss(parameters: dict, sample: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
        return (torch.func.functional_call(layer, parameters, (sample[None],))[0] * slope).sum()

    parameters = {"weights": layer.weights.detach()}
    found = torch.func.vmap(torch.func.grad(loss), (None, 0, 0))(parameters, inputs, slopes)["weights"]
    assert (found - layer.per_sample_gradients(inputs, slopes)).abs().max() < 1e-10


@pytest.mark.parametrize("backend", OURS)
@pytest.mark.parametrize("name", ["strongly_entangling", "data_reuploading"])
def test_a_circuit_first_met_under_torch_func_runs_at_every_depth(name: str, backend: str) -> None:
    fused_of.cache_clear()
    layer = QuantumLayer(make(name, 3, 2), backend)
    inputs = torch.randn(5, 3)

    def slope(sample: torch.Tensor) -> torch.Tensor:
        def value(weights: torch.Tensor) -> torch.Tensor:
            return torch.func.functional_call(layer, {"weights": weights}, (sample[None],)).square().sum()

        return torch.func.grad(value)(layer.weights.detach()).sum()

    deep = torch.func.vmap(torch.func.grad(slope))(inputs)
    inputs.requires_grad_()
    torch.testing.assert_close(torch.autograd.grad(torch.func.vmap(slope)(inputs).sum(), inputs)[0], deep)


@pytest.mark.parametrize("backend", OURS)
@pytest.mark.parametrize(("name", "n_qubits", "options"), CASES)
def test_second_derivatives_are_finite_differences(name: str, n_qubits: int, options: dict, backend: str) -> None:
    layer, inputs, _ = prepared(name, n_qubits, options, backend)
    inputs = inputs[:2].requires_grad_()
    places = [inputs, layer.weights]

    def slopes(differentiable: bool) -> torch.Tensor:
        found = torch.autograd.grad(layer(inputs).square().sum(), places, create_graph=differentiable)
        return torch.stack([slope.pow(2).sum() for slope in found]).sum()

    made = slopes(True)
    assert abs(made - slopes(False)) < 1e-10
    step = 1e-5
    for place, gradient in zip(places, torch.autograd.grad(made, places), strict=True):
        direction = torch.randn_like(place)
        ends = []
        for distance in (step, -2 * step):
            with torch.no_grad():
                place += distance * direction
            ends.append(slopes(False))
        with torch.no_grad():
            place += step * direction
        assert abs((ends[0] - ends[1]) / (2 * step) - (gradient * direction).sum()) < 1e-6


@pytest.mark.parametrize("backend", OURS)
def test_only_what_needs_a_gradient_gets_one(backend: str) -> None:
    layer, inputs, _ = prepared("strongly_entangling", 3, {}, backend)
    layer(inputs).sum().backward()
    assert inputs.grad is None
    layer.requires_grad_(False)
    before = layer.weights.grad.clone()
    inputs.requires_grad_()
    layer(inputs).sum().backward()
    assert inputs.grad.abs().max() > 0
    assert torch.equal(layer.weights.grad, before)
    with torch.no_grad():
        assert not layer(inputs).requires_grad


@pytest.fixture
def without_numba(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "numba" else find(name, *more))
    backends.missing.cache_clear()
    yield
    backends.missing.cache_clear()


@pytest.mark.usefixtures("without_numba")
def test_without_numba_auto_is_fused_and_compiled_says_why_it_cannot() -> None:
    circuit = make("strongly_entangling", 2, 1)
    assert QuantumLayer(circuit).backend_for(torch.zeros(1, 2)) == "fused"
    with pytest.raises(ValueError, match="the package numba is not installed"):
        QuantumLayer(circuit, "compiled")


def test_auto_is_compiled_on_the_cpu_and_fused_elsewhere() -> None:
    layer = QuantumLayer(make("strongly_entangling", 2, 1))
    assert layer.backend_for(torch.zeros(1, 2)) == "compiled"
    assert layer.backend_for(torch.zeros(1, 2, device="meta")) == "fused"


@pytest.mark.parametrize("backend", OURS)
def test_a_graph_can_be_used_twice_and_beside_others(backend: str) -> None:
    layer, inputs, slopes = prepared("strongly_entangling", 4, {}, backend)
    expected = [torch.autograd.grad((layer(x) * slopes).sum(), layer.weights)[0] for x in (inputs, -inputs)]
    first, second = (
        layer(inputs),
        layer(-inputs),
    )  # the second must not take the memory that the first one's graph holds
    for _ in range(2):
        for values, gradient in zip((first, second), expected, strict=True):
            (again,) = torch.autograd.grad((values * slopes).sum(), layer.weights, retain_graph=True)
            assert torch.equal(again, gradient)


@pytest.mark.parametrize("backend", OURS)
def test_several_threads_may_use_one_layer_at_once(backend: str) -> None:
    layer, _, _ = prepared("strongly_entangling", 5, {}, backend)
    batches = [torch.randn(40, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(i)) for i in range(16)]

    def gradient(inputs: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(layer(inputs).square().sum(), layer.weights)[0]

    with ThreadPoolExecutor(4) as pool:
        for together, alone in zip(pool.map(gradient, batches), map(gradient, batches), strict=True):
            assert torch.equal(together, alone)


def test_a_pickled_layer_is_the_layer() -> None:
    layer, inputs, _ = prepared("tree", 4, {}, "auto")
    layer(inputs)
    assert torch.equal(pickle.loads(pickle.dumps(layer))(inputs), layer(inputs))
