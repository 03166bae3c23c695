"""Time the quantum layer, forward plus backward, beside PennyLane and other simulators.

    python benchmarks/quantum_layer.py --quick
    python benchmarks/quantum_layer.py --threads 2 --out benchmarks/results/quantum_layer

Strongly entangling layers behind an RY embedding, ``<Z>`` on every qubit, single precision, gradients to inputs and
weights of given slopes of the values, as the next layer of a network hands them back: no loss is timed. All contenders
of a case take turns in one process, so that what else the machine does falls on all of them; a figure is the median
over the turns. The first call (compilation, tracing) is told apart. Every contender must give
our values before it is timed. Peers that are not installed are left out, saying so.

Written: ``times.json``, ``table.md``, ``times.png``.
"""

import argparse
import json
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hcqsfl.quantum.backend.lowering import lower
from hcqsfl.quantum.backend.pennylane import qnode
from hcqsfl.quantum.circuit import Circuit, in_layers
from hcqsfl.quantum.circuits import make
from hcqsfl.quantum.layer import QuantumLayer

Step = Callable[[], np.ndarray]
"""One forward and backward pass; returns the values ``(b, n_observables)``."""

FULL = [(n, layers, batch) for n in (4, 6, 8, 10, 12) for layers in (1, 3, 6) for batch in (32, 128, 512)]
QUICK = [(4, 3, 32), (6, 3, 128), (8, 3, 64), (8, 3, 512), (10, 3, 128)]


@dataclass(frozen=True)
class Problem:
    """A circuit with the numbers that every contender gets."""

    circuit: Circuit
    inputs: torch.Tensor
    weights: torch.Tensor
    slopes: torch.Tensor


@dataclass
class Case:
    """The figures of one circuit and batch size, in seconds."""

    n_qubits: int
    n_layers: int
    batch: int
    first: dict[str, float] = field(default_factory=dict)
    median: dict[str, float] = field(default_factory=dict)
    turns: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    bound: dict[str, float] = field(default_factory=dict)


def problem(n_qubits: int, n_layers: int, batch: int) -> Problem:
    generator = torch.Generator().manual_seed(n_qubits * 1000 + n_layers * 100 + batch)
    circuit = make("strongly_entangling", n_qubits, n_layers)
    return Problem(
        circuit,
        torch.rand(batch, n_qubits, generator=generator) * 6 - 3,
        torch.rand(circuit.weight_shape, generator=generator) * 6 - 3,
        torch.randn(batch, n_qubits, generator=generator),
    )


def by_torch(p: Problem, evaluate: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Step:
    inputs, weights = p.inputs.clone().requires_grad_(), p.weights.clone().requires_grad_()

    def step() -> np.ndarray:
        inputs.grad = weights.grad = None
        values = evaluate(inputs, weights)
        values.backward(p.slopes)
        return values.detach().numpy()

    return step


def ours(backend: str) -> Callable[[Problem], Step]:
    def build(p: Problem) -> Step:
        layer = QuantumLayer(p.circuit, backend)
        with torch.no_grad():
            layer.weights.copy_(p.weights)
        inputs = p.inputs.clone().requires_grad_()

        def step() -> np.ndarray:
            inputs.grad = layer.weights.grad = None
            values = layer(inputs)
            values.backward(p.slopes)
            return values.detach().numpy()

        return step

    return build


def pennylane(device: str, diff_method: str) -> Callable[[Problem], Step]:
    def build(p: Problem) -> Step:
        node = qnode(p.circuit, device, diff_method)
        return by_torch(p, lambda x, w: torch.stack(tuple(node(x, w.reshape(-1))), -1).to(x.dtype))

    return build


def torchquantum(p: Problem) -> Step:
    import torchquantum as tq
    import torchquantum.functional as tqf

    named = {"RX": tqf.rx, "RY": tqf.ry, "RZ": tqf.rz}
    measure = tq.MeasureAll(tq.PauliZ)

    def evaluate(inputs: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        device = tq.QuantumDevice(n_wires=p.circuit.n_qubits, bsz=len(inputs))
        flat = weights.reshape(-1)
        for gate in p.circuit.gates:
            angles = [angle.value(inputs, flat) for angle in gate.angles]
            if gate.name == "CNOT":
                tqf.cnot(device, wires=list(gate.wires))
            elif gate.name == "Rot":
                tqf.rot(device, wires=gate.wires[0], params=torch.stack(angles)[None])
            else:
                named[gate.name](device, wires=gate.wires[0], params=angles[0])
        values: torch.Tensor = measure(device)
        return values

    return by_torch(p, evaluate)


def by_jax(p: Problem, evaluate: Callable[[Any, Any], Any]) -> Step:
    import jax
    import jax.numpy as jnp

    inputs, weights, slopes = (jnp.asarray(t.numpy()) for t in (p.inputs, p.weights, p.slopes))

    def loss(inputs: Any, weights: Any) -> Any:
        values = evaluate(inputs, weights.reshape(-1))
        return (values * slopes).sum(), values

    both = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))

    def step() -> np.ndarray:
        (_, values), gradients = both(inputs, weights)
        jax.block_until_ready((values, gradients))
        return np.asarray(values)

    return step


def angle_in_jax(angle: Any, inputs: Any, flat: Any) -> Any:
    """What ``Angle.value`` computes, for arrays of jax."""
    total = angle.scale if angle.weight is None else angle.scale * flat[angle.weight]
    for i in angle.inputs:
        total = total * (inputs[..., i] - angle.shift)
    return total


def pennylane_jax(p: Problem) -> Step:
    import jax.numpy as jnp
    import pennylane as qml

    @qml.qnode(qml.device("default.qubit", wires=p.circuit.n_qubits), interface="jax", diff_method="backprop")
    def run(inputs: Any, flat: Any) -> Any:
        for gate in p.circuit.gates:
            angles = [angle_in_jax(angle, inputs, flat) for angle in gate.angles]
            getattr(qml, gate.name)(*angles, wires=list(gate.wires))
        return [qml.expval(qml.PauliZ(wire)) for wire in range(p.circuit.n_qubits)]

    return by_jax(p, lambda inputs, flat: jnp.stack(run(inputs, flat), -1))


def tensorcircuit_jax(p: Problem) -> Step:
    import jax
    import jax.numpy as jnp
    import tensorcircuit as tc

    tc.set_backend("jax")
    tc.set_dtype("complex64")
    n = p.circuit.n_qubits
    states = np.arange(2**n)
    signs = jnp.asarray(np.stack([1 - 2 * (states >> (n - 1 - wire) & 1) for wire in range(n)], 1), jnp.float32)

    def one(inputs: Any, flat: Any) -> Any:
        circuit = tc.Circuit(n)
        for gate in p.circuit.gates:
            angles = [angle_in_jax(angle, inputs, flat) for angle in gate.angles]
            if gate.name == "CNOT":
                circuit.cnot(*gate.wires)
                continue
            axes = ("rz", "ry", "rz") if gate.name == "Rot" else (gate.name.lower(),)
            for axis, theta in zip(axes, angles, strict=True):
                getattr(circuit, axis)(gate.wires[0], theta=theta)
        return jnp.abs(circuit.state()) ** 2 @ signs

    return by_jax(p, jax.vmap(one, (0, None)))


CONTENDERS: dict[str, tuple[Callable[[Problem], Step], tuple[str, ...]]] = {
    "compiled": (ours("compiled"), ("numba",)),
    "fused": (ours("fused"), ()),
    "default.qubit": (pennylane("default.qubit", "backprop"), ()),
    "lightning.qubit": (pennylane("lightning.qubit", "adjoint"), ("pennylane_lightning",)),
    "torchquantum": (torchquantum, ("torchquantum",)),
    "tensorcircuit-jax": (tensorcircuit_jax, ("jax", "tensorcircuit")),
    "pennylane-jax": (pennylane_jax, ("jax",)),
}
"""How to build each, and the packages it needs."""

OURS = ("compiled", "fused")

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
"""``cpu`` counts the processor's time on this process, all threads together: for a machine that others use too."""

TURN = 0.05
"""Seconds for which a contender repeats its step before the next one's turn; a slow one runs once."""


def installed() -> tuple[list[str], dict[str, str]]:
    """Return the contenders that can run, and why the others cannot."""
    absent = {
        name: f"{package} is not installed"
        for name, (_, packages) in CONTENDERS.items()
        for package in packages
        if find_spec(package) is None
    }
    return [name for name in CONTENDERS if name not in absent], absent


def work(n_qubits: int, n_layers: int, batch: int) -> float:
    """Amplitudes that the gates of a case touch, to foresee how long a slow peer will take."""
    return 2.0**n_qubits * n_qubits * (n_layers + 1) * batch


@dataclass
class Foresight:
    """What the cases before tell of the next one.

    Attributes:
        limit, compile_limit: seconds beyond which a step or a first call is not waited for.
        pace: seconds for each amplitude.
        first: first calls of each number of qubits and layers, which hardly depend on the batch.
    """

    limit: float
    compile_limit: float
    pace: dict[str, float] = field(default_factory=dict)
    first: dict[str, dict[tuple[int, int], float]] = field(default_factory=dict)

    def reason(self, name: str, case: Case) -> str:
        """Return why a contender is left out of a case, or nothing."""
        if (expected := self.pace.get(name, 0.0) * work(case.n_qubits, case.n_layers, case.batch)) > self.limit:
            return f"a step of about {expected:.0f} s is foreseen"
        for (n_qubits, n_layers), seconds in self.first.get(name, {}).items():
            if seconds > self.compile_limit and n_qubits <= case.n_qubits and n_layers <= case.n_layers:
                return f"its first call took {seconds:.0f} s at {n_qubits} qubits and {n_layers} layers"
        return ""


def measure(case: Case, names: list[str], seconds: float, foresight: Foresight, clock: Callable[[], float]) -> None:
    """Let the contenders take turns."""
    p = problem(case.n_qubits, case.n_layers, case.batch)
    size = work(case.n_qubits, case.n_layers, case.batch)
    reference: np.ndarray | None = None
    steps: dict[str, Step] = {}
    for name in names:
        if why := foresight.reason(name, case):
            case.left_out[name] = why
            continue
        start = clock()
        try:
            step = CONTENDERS[name][0](p)
            values = step()
        except Exception as error:
            case.left_out[name] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            continue
        case.first[name] = clock() - start
        foresight.first.setdefault(name, {})[case.n_qubits, case.n_layers] = case.first[name]
        reference = values if reference is None else reference
        if not np.allclose(values, reference, atol=1e-4):
            raise SystemExit(f"{name} disagrees at {case.n_qubits} qubits by {np.abs(values - reference).max():.1e}")
        steps[name] = step
    times: dict[str, list[float]] = {name: [] for name in steps}
    end = clock() + seconds
    turn = 0
    while clock() < end or turn < 3:
        for name, step in steps.items():
            # a slow peer takes fewer turns, but three at least, unless one is over the limit
            if turn >= 3 and sum(times[name]) > seconds / len(steps):
                continue
            if times[name] and times[name][-1] > foresight.limit:
                continue
            # what the others left in the caches should not count: a turn goes on for a while
            stop = clock() + TURN
            while True:
                start = clock()
                step()
                times[name].append((now := clock()) - start)
                if now >= stop:
                    break
        turn += 1
    for name, found in times.items():
        case.median[name], case.turns[name] = statistics.median(found), len(found)
        foresight.pace[name] = case.median[name] / size


def machine_peaks(clock: Callable[[], float]) -> dict[str, float]:
    """Measure what the machine can do with the threads allowed: float operations and bytes a second."""
    a, b = torch.randn(1536, 1536), torch.randn(1536, 1536)
    flops = max(2 * 1536**3 / _seconds(lambda: torch.mm(a, b), clock) for _ in range(5))
    big = torch.zeros(2**26)  # 256 MiB, more than most caches
    out = torch.empty_like(big)
    bandwidth = max(2 * big.numel() * 4 / _seconds(lambda: out.copy_(big), clock) for _ in range(5))
    return {"flops": flops, "bytes": bandwidth}


def _seconds(call: Callable[[], Any], clock: Callable[[], float]) -> float:
    start = clock()
    call()
    return clock() - start


def least_seconds(circuit: Circuit, batch: int, peaks: dict[str, float]) -> dict[str, float]:
    """Return the time that the compiled kernel's arithmetic and its traffic of states take at the peaks.

    Arithmetic, for each amplitude: a rotation is 6 operations forward, 12 to turn state and adjoint back, and 4 for its
    slope; a level's phases are 6 forward, 12 back, and 3 plus one transform (n) for their slopes; the product state is
    12 forward, 12 again and 28 backward; measuring is 3 plus a transform, and its adjoint 2 plus a transform. Traffic:
    the last state is written once and read once.
    """
    n, lowered = circuit.n_qubits, lower(circuit)
    per_amplitude = 12 + 12 + 28 + 3 + n + 2 + n
    for level in lowered.levels:
        per_amplitude += 22 * len(level.turns) + (6 + 12 + 3 + n if level.phases else 0)
    amplitudes = batch * 2**n
    return {
        "arithmetic": per_amplitude * amplitudes / peaks["flops"],
        "memory": 2 * amplitudes * 8 / peaks["bytes"],
    }


def table(cases: list[Case], names: list[str]) -> str:
    """Return the medians in ms, how many times longer others take, and how far the kernel is from the machine."""
    peers = [name for name in names if name not in OURS]
    head = ["n", "layers", "batch", *names, *(f"default.qubit / {name}" for name in OURS)]
    head += ["fastest peer / compiled", "compiled / bound", "bound by"]
    lines = ["| " + " | ".join(head) + " |", "|" + "--:|" * len(head)]
    for case in cases:
        row = [str(case.n_qubits), str(case.n_layers), str(case.batch)]
        row += [f"{1e3 * case.median[name]:.3g}" if name in case.median else "-" for name in names]
        row += [_ratio(case.median.get("default.qubit"), case.median.get(name)) for name in OURS]
        fastest = min((case.median[name] for name in peers if name in case.median), default=None)
        row.append(_ratio(fastest, case.median.get("compiled")))
        bound_by = max(case.bound, key=case.bound.__getitem__)
        row += [_ratio(case.median.get("compiled"), case.bound[bound_by]), bound_by]
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"


def _ratio(above: float | None, below: float | None) -> str:
    return "-" if above is None or below is None else f"{above / below:.1f}"


def figure(cases: list[Case], names: list[str], path: Path) -> None:
    """Draw the medians against the number of qubits, a panel a batch size, at the depth nearest 3."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    depth = min({case.n_layers for case in cases}, key=lambda layers: abs(layers - 3))
    batches = sorted({case.batch for case in cases if case.n_layers == depth})
    panels, axes = plt.subplots(
        1, len(batches), figsize=(4 * len(batches), 4.2), sharey=True, squeeze=False, layout="constrained"
    )
    for axis, batch in zip(axes[0], batches, strict=True):
        here = [case for case in cases if case.batch == batch and case.n_layers == depth]
        for name in names:
            points = [(case.n_qubits, 1e3 * case.median[name]) for case in here if name in case.median]
            if points:
                style: dict[str, Any] = {"linewidth": 2.5} if name in OURS else {"linewidth": 1, "linestyle": "--"}
                style["color"] = f"C{list(CONTENDERS).index(name)}"  # the same in every panel
                axis.plot(*zip(*points, strict=True), marker="o", label=name, **style)
        axis.plot(
            [case.n_qubits for case in here],
            [1e3 * max(case.bound.values()) for case in here],
            color="0.6", linestyle=":", marker="o" if len(here) == 1 else None, label="machine bound",
        )  # fmt: skip
        axis.set(
            yscale="log",
            xlabel="qubits",
            xticks=sorted({case.n_qubits for case in here}),
            title=f"{in_layers(depth)}, batch {batch}",
        )
    axes[0][0].set_ylabel("forward + backward, ms")
    handles = {
        label: handle for axis in axes[0] for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    panels.legend(handles.values(), handles, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    panels.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="five cases, and only PennyLane as a peer")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads that torch may use")
    parser.add_argument("--seconds", type=float, help="time for the turns of a case (2 with --quick, else 8)")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="cpu where others use the machine too")
    parser.add_argument("--limit", type=float, default=20.0, help="leave a peer out whose step takes longer, in s")
    parser.add_argument("--compile-limit", type=float, default=60.0, help="the same of first calls, in s")
    for size in ("qubits", "layers", "batches"):
        parser.add_argument(f"--{size}", nargs="+", type=int, help="only these sizes")
    parser.add_argument("--append", action="store_true", help="keep the cases that are in the folder already")
    parser.add_argument("--contenders", nargs="+", choices=list(CONTENDERS), help="only these")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/quantum_layer"), help="folder to write")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")  # peers warn about each other
    torch.set_num_threads(arguments.threads)
    names, absent = installed()
    wanted = arguments.contenders or ((*OURS, "default.qubit", "lightning.qubit") if arguments.quick else names)
    names = [name for name in names if name in wanted]
    for name, why in absent.items():
        print(f"left out: {name}: {why}")
    peaks = machine_peaks(CLOCKS[arguments.clock])
    print(f"{peaks['flops'] / 1e9:.0f} GFLOP/s, {peaks['bytes'] / 1e9:.1f} GB/s with {arguments.threads} threads")
    cases, foresight = [], Foresight(arguments.limit, arguments.compile_limit)
    if arguments.append:
        held = json.loads((arguments.out / "times.json").read_text())
        cases, absent = [Case(**case) for case in held["cases"]], absent | held["absent"]
    asked = (arguments.qubits, arguments.layers, arguments.batches)
    done = {(case.n_qubits, case.n_layers, case.batch) for case in cases}
    for sizes in QUICK if arguments.quick else FULL:
        if sizes in done or any(only and size not in only for size, only in zip(sizes, asked, strict=True)):
            continue
        case = Case(*sizes)
        case.bound = least_seconds(make("strongly_entangling", *sizes[:2]), case.batch, peaks)
        measure(case, names, arguments.seconds or (2 if arguments.quick else 8), foresight, CLOCKS[arguments.clock])
        cases = sorted([*cases, case], key=lambda case: (case.n_qubits, case.n_layers, case.batch))
        told = ", ".join(f"{name} {1e3 * seconds:.3g} ms" for name, seconds in case.median.items())
        print(f"n={case.n_qubits} layers={case.n_layers} batch={case.batch}: {told}", flush=True)
        for name, why in case.left_out.items():
            print(f"  left out: {name}: {why}")
        shown = [name for name in CONTENDERS if any(name in case.median for case in cases)]
        write(arguments, cases, shown, absent, peaks)  # after each case, so that an interrupted run leaves its figures
    print(table(cases, shown) + f"written to {arguments.out}")


def write(
    arguments: argparse.Namespace, cases: list[Case], names: list[str], absent: dict[str, str], peaks: dict[str, float]
) -> None:
    """Write the figures, the table and the picture."""
    arguments.out.mkdir(parents=True, exist_ok=True)
    facts = {
        "processor": platform.processor() or platform.machine(),
        "threads": arguments.threads,
        "clock": arguments.clock,
        "load": os.getloadavg() if hasattr(os, "getloadavg") else None,
        "torch": torch.__version__,
        "peaks": peaks,
        "absent": absent,
        "cases": [asdict(case) for case in cases],
    }
    (arguments.out / "times.json").write_text(json.dumps(facts, indent=1) + "\n")
    (arguments.out / "table.md").write_text("Medians in ms; ratios as named.\n\n" + table(cases, names))
    figure(cases, names, arguments.out / "times.png")


if __name__ == "__main__":
    main()
