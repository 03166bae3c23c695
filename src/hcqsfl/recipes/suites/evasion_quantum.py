"""Does an imperfect machine make a circuit robust (A15)? Noise and shots, with attackers who know of them.

Source: the claim is that of Du et al. (2021), Quantum noise protects quantum classifiers against adversaries; the
doubt that of Winderl et al. (2023), Quantum neural networks under depolarization noise.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from torch import Tensor, nn

from hcqsfl.adversarial.evasion.attack import Effort
from hcqsfl.evaluation.attack_rows import Row
from hcqsfl.evaluation.clustered import Statistic
from hcqsfl.models.predict import predict
from hcqsfl.quantum.layer import QuantumLayer
from hcqsfl.quantum.noise import DENSITY_UP_TO, Noise, with_noise
from hcqsfl.recipes.profiles import Case
from hcqsfl.recipes.suites.evasion_sweep import Sweep

LEVELS = {
    "smoke": ((0.1, None), (0.0, 64)),
    "paper": ((0.001, None), (0.01, None), (0.03, None), (0.1, None), (0.0, 16), (0.0, 256), (0.03, 256)),
}
DRAWS = 8
N_TRAJECTORIES = 20


Metric = tuple[str, Callable[[Tensor], Statistic], bool]
"""Its name, from logits to what scores rows of them, and whether higher is a better attack."""


def cases(sweep: Sweep, attack: str, metric: Metric) -> list[Case]:
    """Return a case for each machine, where there is a circuit to run on it; none otherwise.

    Args:
        sweep: whom, and on which windows or flows.
        attack: by gradients.
        metric: of what comes of it.
    """
    if not any(isinstance(module, QuantumLayer) for module in sweep.network.modules()):
        return []
    levels = LEVELS.get(sweep.profile.name, LEVELS["paper"])
    return [
        Case(f"{attack}/T9/p {p:g} shots {shots}", partial(_rows, sweep, attack, metric, p, shots))
        for p, shots in levels
    ]


def _rows(sweep: Sweep, attack: str, metric: Metric, p: float, shots: int | None) -> Sequence[Row]:
    machine = _machine(sweep, p, shots)
    epsilon = sweep.epsilons[len(sweep.epsilons) // 2]
    few = Effort(min(sweep.effort.steps, 20), 1, 1)
    is_random = shots is not None or not _is_exact(sweep)
    attackers = {
        "perfect simulator": sweep.run(attack, epsilon, judge=machine, effort=few, stop=False),
        "the machine itself": sweep.run(
            attack, epsilon, network=machine, judge=machine, effort=few, stop=False, draws=DRAWS if is_random else 1
        ),
    }
    noise = sweep.run("noise", epsilon, judge=machine)
    trivial = {"no change": predict(machine, sweep.x), "random change of the same norm": noise.logits}
    name, statistic, higher = metric
    where = ", ".join([*([f"depolarising {p:g}"] if p else []), *([f"{shots} shots"] if shots else [])])
    facts = {
        "depolarising": p,
        "shots": shots or "exact expectation values",
        "draws averaged": DRAWS if is_random else 1,
    }
    rows = []
    for who, found in attackers.items():
        knowledge = f"gradients of {who}; {where}"
        row = sweep.row(attack, found, knowledge, f"{name} on it", statistic, trivial, higher=higher, facts=facts)
        rows.append(replace(row, id="A15"))
    return rows


def _machine(sweep: Sweep, p: float, shots: int | None) -> nn.Module:
    noisy = with_noise(
        sweep.network, Noise(depolarising=p), shots=shots, n_trajectories=N_TRAJECTORIES, seed=sweep.victim.seed
    )
    return noisy.requires_grad_(False).eval().cpu()  # the noise of a machine is simulated by the processor


def _is_exact(sweep: Sweep) -> bool:
    layers = [module for module in sweep.network.modules() if isinstance(module, QuantumLayer)]
    return all(layer.circuit.n_qubits <= DENSITY_UP_TO for layer in layers)
