"""Training under the noise that a config names: it is felt, resumed to the bit, and refused where it cannot be."""

import shutil
from pathlib import Path

import pytest
import torch

from hcqsfl import build
from hcqsfl import config as settings
from hcqsfl.evaluation.result import Result
from hcqsfl.federated import checkpoint
from hcqsfl.quantum.layer import QuantumLayer
from hcqsfl.quantum.noise import Noise, NoisyLayer, with_noise
from hcqsfl.recipes.train import train
from made_people import settings_text, write_table

NOISE = {"depolarising": 0.02, "amplitude_damping": 0.01, "phase_damping": 0.01, "readout": 0.02, "shots": 200}
EXAMPLE = Path(__file__).parents[2] / "configs" / "hqsl_noisy.toml"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_table(tmp_path / "data" / "table", 3)
    text = settings_text("Noisy", trunk={"noise": NOISE}, evaluation={"controls": ["classical"], "references": []})
    (tmp_path / "c.toml").write_text(text)
    monkeypatch.setenv("HCQSFL_DATA", str(tmp_path / "data"))
    return tmp_path


def run(home: Path, out: str, *overrides: str, **options) -> Result:
    return train(settings.load(home / "c.toml", overrides), home / out, cache=home / "cache", **options)


def weights(home: Path, out: str) -> dict[str, bytes]:
    """The tensors of the hybrid arm's only checkpoint."""
    (path,) = (home / out / "jobs" / "hybrid").rglob("checkpoint.safetensors")
    return {name: tensor.numpy().tobytes() for name, tensor in checkpoint.load(path)[0].items()}


@pytest.mark.parametrize("override", ["trunk.noise.shots=200", 'trunk.noise.method="trajectories"'])
def test_a_noisy_training_is_resumed_to_the_bit_and_differs_from_a_perfect_one(home: Path, override: str) -> None:
    few = [override, "trunk.noise.n_trajectories=3", "evaluation.controls=[]", "evaluation.without_control=true"]
    run(home, "whole", *few)
    run(home, "cut", *few)
    run(home, "short", *few, "federation.rounds=1")
    # as if it had been killed after its first round
    for short in (home / "short" / "jobs").rglob("*"):
        target = home / "cut" / short.relative_to(home / "short")
        if short.name == "predictions.npz":
            target.unlink()
        elif short.is_file():
            shutil.copy(short, target)
    assert weights(home, "cut") != weights(home, "whole")
    run(home, "cut", *few, resume=True)
    assert weights(home, "cut") == weights(home, "whole")

    run(home, "stronger", *few, "trunk.noise.depolarising=0.1")
    assert weights(home, "stronger") != weights(home, "whole")


def test_the_example_builds_a_noisy_circuit_with_a_noisy_frozen_control() -> None:
    config = settings.load(EXAMPLE)
    assert config.trunk.noise is not None
    assert {"frozen", "classical"} <= set(config.evaluation.controls)
    assert "noise" in config.to_toml()


def test_draws_without_a_counter_depend_on_the_numbers_alone() -> None:
    layer = QuantumLayer(build.circuit(settings.load(EXAMPLE)), dtype=torch.complex128)
    first, second = (NoisyLayer(layer, Noise(readout=0.02), shots=50, seed=3, fresh=False) for _ in range(2))
    rows = torch.randn(4, layer.circuit.n_inputs, dtype=torch.float64)
    values = first(rows)
    assert torch.equal(first(rows), values)
    assert torch.equal(second(rows), values)
    assert not torch.equal(second(rows + 1e-12), values)
    # means over shots of many different draws come close to the expectation value
    nearby = torch.cat([first(rows + 1e-9 * i) for i in range(400)]).view(400, 4, -1).mean(0)
    exact = NoisyLayer(layer, Noise(readout=0.02))(rows)
    assert (nearby - exact).abs().max() < 5 / (50 * 400) ** 0.5


def test_new_noise_replaces_that_of_training() -> None:
    layer = QuantumLayer(build.circuit(settings.load(EXAMPLE)))
    network = torch.nn.Sequential(NoisyLayer(layer, Noise(readout=0.5)))
    rows = torch.randn(3, layer.circuit.n_inputs)
    assert network(rows).abs().max() == 0
    assert torch.equal(with_noise(network, Noise())(rows), layer(rows))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (['trunk.kind="classical"'], "needs kind = \"hybrid\"; the trunk 'classical' has no circuit"),
        (['trunk.kind="frozen"'], "'frozen' never trains its circuit"),
        (["trunk.noise.shots=0"], r"trunk\.noise\.shots.*greater than or equal to 1"),
        (["trunk.noise.depolarising=1.5"], r"trunk\.noise\.depolarising.*less than or equal to 1"),
        (["trunk.noise={}"], "changes nothing"),
        (["dp_sgd={}"], "exclude each other"),
        (["federation.batched=true"], r"set federation\.batched = false"),
        (["trunk.noise.depolarizing=0.1"], "did you mean 'depolarising'"),
    ],
)
def test_noise_that_cannot_be_is_refused(home: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        settings.load(home / "c.toml", overrides)


def test_density_matrices_beyond_memory_are_refused_before_training(home: Path) -> None:
    with pytest.raises(ValueError, match=r"density matrices of 8 samples on 12 qubits need .* GiB"):
        run(home, "large", "trunk.n_qubits=12", 'trunk.noise.method="density"')
