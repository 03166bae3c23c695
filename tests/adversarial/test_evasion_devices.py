"""Networks attacked on another device: the same search, the same finds, and what is not there is refused."""

import copy

import pytest
import torch
from torch import nn

from adversarial.evasion_examples import signals, trained
from hcqsfl.adversarial import evasion
from hcqsfl.adversarial.evasion.attack import Effort
from hcqsfl.adversarial.evasion.goal import Goal
from hcqsfl.adversarial.evasion.oracle import Oracle
from hcqsfl.adversarial.evasion.region import Ball
from hcqsfl.models.devices import device, device_of
from hcqsfl.models.fronts.conv1d import Conv1dFront
from hcqsfl.models.predict import predict
from hcqsfl.quantum.circuits import make
from hcqsfl.quantum.layer import QuantumLayer
from hcqsfl.recipes.attack import attack

RADIUS = 0.8


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("name", ["fgsm", "pgd", "autopgd_ce", "smooth", "square", "hop_skip_jump"])
@pytest.mark.parametrize("kind", ["hybrid", "classical"])
def test_an_attack_finds_on_a_gpu_what_it_finds_on_the_processor(kind: str, name: str) -> None:
    x, y = signals()
    torch.manual_seed(1)
    middle = QuantumLayer(make("strongly_entangling", 4, 2)) if kind == "hybrid" else nn.Linear(4, 4)
    front = Conv1dFront(2, 64, 4, width=8, n_layers=2)
    network = trained(x, y, nn.Sequential(front, nn.Tanh(), middle, nn.Linear(4, 3)))
    other = copy.deepcopy(network).to(device("cuda"))
    assert (predict(other, x) - predict(network, x)).abs().max() < 1e-4
    left, asked = [], []
    for each in (network, other):
        oracle = Oracle(each, evasion.make(name).access)
        found = evasion.make(name).run(oracle, Ball(x, RADIUS), Goal(y), Effort(10, 2, 200), 3)
        assert found.device.type == "cpu"
        inside = (found - x).flatten(1).abs().amax(1) <= RADIUS + 1e-6
        left.append(float(((predict(network, found).argmax(1) == y) | ~inside).float().mean()))
        asked.append(oracle.gradients + oracle.queries)
    assert left[0] < 1
    assert left[1] == pytest.approx(left[0], abs=0.05)
    assert asked[1] == pytest.approx(asked[0], rel=0.1)


def test_a_network_without_parameters_is_on_the_processor() -> None:
    assert device_of(nn.Flatten()).type == "cpu"
    assert device("cpu").type == "cpu"


@pytest.mark.parametrize("name", ["cuda:99", "meta", "gpu", ""])
def test_a_device_that_is_not_here_is_refused_beside_those_that_are(name: str) -> None:
    with pytest.raises(ValueError, match=rf"device '{name}': PyTorch {torch.__version__[:4]}.* finds cpu"):
        device(name)


@pytest.mark.parametrize("suite", ["privacy", "poisoning", "all"])
def test_suites_that_compute_on_the_processor_alone_refuse_another_device(suite: str, tmp_path) -> None:
    with pytest.raises(ValueError, match="--device cuda goes with --suite evasion alone"):
        attack(tmp_path, suite, "smoke", cache=tmp_path, device="cuda")
