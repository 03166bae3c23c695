"""The server's half of the network: smashed data in, features out.

All trunks share one frame, so that a comparison between them compares their middle alone::

    smashed (b, n_smashed) -[linear if widths differ]-> bounded angles (b, n_inputs)
    -middle-> (b, n_observables) -linear-> features (b, n_features)
"""

from collections.abc import Callable

from torch import nn

from hcqsfl.models.trunks.classical import ClassicalMiddle
from hcqsfl.models.trunks.fourier import FourierMiddle
from hcqsfl.models.trunks.frame import Trunk
from hcqsfl.models.trunks.frozen import frozen_middle
from hcqsfl.quantum.circuit import Circuit
from hcqsfl.quantum.layer import QuantumLayer
from hcqsfl.registry import lookup

Middle = Callable[[Circuit, str], nn.Module]

TRUNKS: dict[str, Middle] = {
    "classical": lambda circuit, backend: ClassicalMiddle(
        circuit.weight_shape, circuit.n_inputs, len(circuit.observables)
    ),
    "fourier": lambda circuit, backend: FourierMiddle(circuit.n_inputs, len(circuit.observables)),
    "frozen": frozen_middle,
    "hybrid": lambda circuit, backend: QuantumLayer(circuit, backend=backend),
}

DESCRIPTIONS = {
    "classical": "a classical layer of the same width, depth and parameter count in the circuit's place",
    "fourier": "random Fourier features of the same width in the circuit's place, never trained",
    "frozen": "the same circuit, its weights drawn once and never trained",
    "hybrid": "the trained quantum circuit",
}


def make(
    name: str, n_smashed: int, n_features: int, circuit: Circuit, backend: str = "auto", angles: str = "bounded"
) -> Trunk:
    """Return the trunk called ``name``.

    Args:
        name: a name in ``TRUNKS``.
        n_smashed: width of the cut.
        n_features: width of what goes back to the client.
        circuit: the circuit, which also sets the width and parameter count of the classical trunk.
        backend: what simulates the circuit.
        angles: ``bounded`` or ``wrapped``, as in ``Trunk``.

    Raises:
        ValueError: there is no such trunk or backend.
    """
    middle = lookup("trunk", TRUNKS, name)(circuit, backend)
    return Trunk(n_smashed, circuit.n_inputs, middle, len(circuit.observables), n_features, angles)
