"""Time a Gram matrix from batched states against PennyLane's pairwise circuits.

Ours is measured in full. PennyLane evaluates one circuit a pair, so a few pairs are measured and the time of a pair is
multiplied by the number of pairs above the diagonal: an extrapolation, and said to be one in what is printed. The pairs
are run three times and the fastest counts, in PennyLane's favour; both are given one thread.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pennylane as qml
import torch

from hcqsfl.quantum.circuits import make
from hcqsfl.quantum.kernel import KINDS, QuantumKernel

DEVICES = ("default.qubit", "lightning.qubit")


def seconds(run: Callable[[], object], repeats: int) -> list[float]:
    run()  # plans, constants and caches are made here
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return times


def pairwise(device: str, x: np.ndarray) -> tuple[Callable[[], np.ndarray], int]:
    """Return PennyLane's way to the kernel of ``x``, and how many circuits it runs."""
    n_qubits = x.shape[1]

    @qml.qnode(qml.device(device, wires=n_qubits), interface=None, diff_method=None)
    def overlap(a: np.ndarray, b: np.ndarray) -> object:
        qml.IQPEmbedding(a, wires=range(n_qubits))
        qml.adjoint(qml.IQPEmbedding)(b, wires=range(n_qubits))
        return qml.probs(wires=range(n_qubits))

    def run() -> np.ndarray:
        return qml.kernels.square_kernel_matrix(x, lambda a, b: overlap(a, b)[0], assume_normalized_kernel=True)

    return run, len(x) * (len(x) - 1) // 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--qubits", type=int, default=8)
    parser.add_argument("--pairwise-rows", type=int, default=10, help="rows of the small case that PennyLane runs")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, help="also write the figures as JSON")
    args = parser.parse_args()
    torch.set_num_threads(1)
    generator = np.random.default_rng(0)
    x = generator.normal(size=(args.rows, args.qubits))
    circuit = make("iqp", args.qubits, 0)
    pairs = args.rows * (args.rows - 1) // 2
    found: dict[str, object] = {"rows": args.rows, "qubits": args.qubits, "circuit": "iqp, one repeat", "pairs": pairs}

    small = x[: args.pairwise_rows]
    by_pair = {}
    for device in DEVICES:
        run, measured = pairwise(device, small)
        by_pair[device] = min(seconds(run, 3)) / measured
        theirs = run()
        print(
            f"{device}, pairwise: {1e3 * by_pair[device]:.2f} ms a pair over {measured} pairs measured; "
            f"extrapolated to {pairs:,} pairs: {by_pair[device] * pairs:,.0f} s"
        )
        found[device] = {"seconds a pair": by_pair[device], "pairs measured": measured}
    error = np.abs(QuantumKernel(circuit, dtype=torch.complex128).gram(small) - theirs).max()
    print(f"largest difference from PennyLane's small matrix, complex128: {error:.1e}")

    fastest = min(by_pair.values()) * pairs
    for kind in KINDS:
        for dtype in (torch.complex64, torch.complex128):
            kernel = QuantumKernel(circuit, kind, dtype=dtype)
            median = statistics.median(seconds(lambda kernel=kernel: kernel.gram(x), args.repeats))  # type: ignore[misc]
            times = f"{fastest / median:,.0f} times the fastest pairwise (extrapolated)"
            print(f"{kind}, {str(dtype)[6:]}: {median:.4f} s for {args.rows} x {args.rows}; {times}")
            found[f"{kind} {str(dtype)[6:]}"] = {"seconds": median, "times faster, extrapolated": fastest / median}
    if args.out:
        args.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
