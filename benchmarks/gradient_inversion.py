"""Time an evaluation of gradient inversion: each update by itself against all of a round in one batch.

    python benchmarks/gradient_inversion.py --quick

An evaluation is the slope of the cosine distance to the windows, through the gradient of the whole network: a second
derivative. By itself, an update goes through ``torch.func.functional_call`` and torch's autograd, with the compiled
kernels where a circuit is evaluated once; together, all go through ``hcqsfl.privacy.gradients``. Both take turns, and
their slopes must agree. A figure is the median over the turns of the processor's time for one update. Sizes are those
of the configurations of MIMIC-III (PAP), WESAD at 4 Hz and TON_IoT; one window an update, one thread.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from hcqsfl.models import fronts, trunks
from hcqsfl.models.heads import linear_head
from hcqsfl.models.learner import Network
from hcqsfl.privacy.attack import Budget, Knowledge
from hcqsfl.privacy.gradients import Problem, cosine_distance, pose
from hcqsfl.privacy.observation import Observation
from hcqsfl.quantum import circuits

SIZES = {
    "MIMIC": ("conv1d", (1, 750), 4, {"width": 16, "n_layers": 4}, 2),
    "WESAD": ("conv1d", (11, 240), 4, {"width": 16, "n_layers": 3}, 3),
    "TON_IoT": ("tabular", (40, 1), 8, {"width": 256}, 10),
}
RATE = 0.01


def posed(size: str, trunk: str, n_updates: int) -> tuple[Network, Problem, Tensor, Tensor]:
    """Return a network, updates of it, and windows and labels that are guessed: one an update."""
    front, window, n_smashed, options, n_outputs = SIZES[size]
    torch.manual_seed(0)

    def halves() -> tuple[nn.Module, nn.Module, nn.Module]:
        circuit = circuits.make("strongly_entangling", n_smashed, 2)
        return (
            fronts.make(front, *window, n_smashed, **options),
            trunks.make(trunk, n_smashed, 16, circuit),
            linear_head(16, n_outputs),
        )

    network = Network(*halves()).eval()
    before = {name: t.clone() for name, t in network.state_dict().items()}
    y = torch.arange(n_updates) % n_outputs
    after = {}
    for i in range(n_updates):
        slopes = torch.autograd.grad(network.loss(torch.randn(1, *window), y[i : i + 1]), list(network.parameters()))
        moved = {name: p - RATE * g for (name, p), g in zip(network.named_parameters(), slopes, strict=True)}
        after[f"{i:03d}"] = {name: p.detach() for name, p in moved.items()}
    seen = Observation("T5", False, client_states={0: {"": before}}, updates={1: after})
    training = {"optimizer": "sgd", "learning_rate": RATE}
    makers = [lambda place=place: halves()[place] for place in range(3)]
    x = torch.randn(n_updates, 1, *window)
    knowledge = Knowledge(x[:, 0], y, ["Z"] * n_updates, n_outputs, *makers, training)
    return network, pose(seen, knowledge, Budget(1), 0), x, nn.functional.one_hot(y, n_outputs).float()[:, None]


def alone(network: Network, problem: Problem, x: Tensor, soft: Tensor) -> Tensor:
    """Return the slopes of each update, one after the other."""
    found = []
    for i, (window, label) in enumerate(zip(x, soft, strict=True)):
        movement = {name: m[i] for name, m in problem.movement.items()}
        window = window.clone().requires_grad_()
        held = dict(network.named_parameters())
        logits = torch.func.functional_call(network, held, (window,))
        loss = -(label * logits.log_softmax(dim=1)).sum()
        slopes = torch.autograd.grad(loss, list(held.values()), create_graph=True)
        made = {name: RATE * slope for name, slope in zip(held, slopes, strict=True)}
        a, b = (torch.cat([all_[name].flatten() for name in movement]) for all_ in (made, movement))
        distance = 1 - (a @ b) / (a.norm() * b.norm())
        found += torch.autograd.grad(distance, window)
    return torch.stack(found)


def together(network: Network, problem: Problem, x: Tensor, soft: Tensor) -> Tensor:
    """Return the same slopes in one batch."""
    x = x.clone().requires_grad_()
    (slopes,) = torch.autograd.grad(cosine_distance(problem.moved(x, soft), problem.movement).sum(), x)
    return slopes


def measure(size: str, trunk: str, n_updates: int, turns: int) -> tuple[float, float]:
    """Return the milliseconds of an evaluation of one update, by itself and in a batch."""
    case = posed(size, trunk, n_updates)
    ways: list[Callable[[Network, Problem, Tensor, Tensor], Tensor]] = [alone, together]
    slopes = [way(*case) for way in ways]
    torch.testing.assert_close(slopes[1], slopes[0], atol=2e-3 * float(slopes[0].abs().max()), rtol=0)
    times: list[list[float]] = [[], []]
    for _ in range(turns):
        for way, own in zip(ways, times, strict=True):
            start = time.process_time()
            way(*case)
            own.append(1e3 * (time.process_time() - start) / n_updates)
    return statistics.median(times[0]), statistics.median(times[1])


def main() -> None:
    """Measure every size with either trunk."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few turns")
    parser.add_argument("--updates", type=int, default=12)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'size':10}{'trunk':12}{'by itself, ms':>14}{'together, ms':>14}{'ratio':>8}")
    for size in SIZES:
        for trunk in ("hybrid", "classical"):
            by_itself, batch = measure(size, trunk, arguments.updates, 7 if arguments.quick else 40)
            print(f"{size:10}{trunk:12}{by_itself:14.2f}{batch:14.2f}{by_itself / batch:8.1f}")


if __name__ == "__main__":
    main()
