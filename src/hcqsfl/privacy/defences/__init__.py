"""Defences on the client's side of the cut: one file a defence, each with a class; one line here."""

import inspect
from collections.abc import Callable
from typing import Any

from hcqsfl.models.defence import Defence
from hcqsfl.registry import load_object, lookup

DEFENCES: dict[str, str] = {
    "adversarial_training": "hcqsfl.privacy.defences.adversarial_training:AdversarialTraining",
    "dfil": "hcqsfl.privacy.defences.dfil:FisherCalibrated",
    "flow_training": "hcqsfl.privacy.defences.flow_training:FlowTraining",
    "gaussian": "hcqsfl.privacy.defences.gaussian:Gaussian",
    "lipschitz": "hcqsfl.privacy.defences.lipschitz:Lipschitz",
    "marvell": "hcqsfl.privacy.defences.marvell:Marvell",
    "max_norm": "hcqsfl.privacy.defences.max_norm:MaxNorm",
    "memoised_gaussian": "hcqsfl.privacy.defences.gaussian:MemoisedGaussian",
    "nopeek": "hcqsfl.privacy.defences.nopeek:NoPeek",
    "randomised_response": "hcqsfl.privacy.defences.randomised_response:RandomisedResponse",
    "two_pi": "hcqsfl.privacy.defences.two_pi:TwoPi",
}
"""Name to ``module:class``; a class takes ``seed`` and ``client`` besides its options, and may take ``n_outputs`` and
``flows``."""


def make(
    name: str, seed: int, client: str, n_outputs: int = 0, flows: Callable[..., Any] | None = None, **options: Any
) -> Defence:
    """Return the defence called ``name`` for one client.

    Args:
        name: a key of ``DEFENCES``.
        seed, client: fix what it draws.
        n_outputs: classes, for defences of labels.
        flows: gives a client's flows in their own units, for defences that change flows.
        options: its strength, and whatever else it takes.

    Raises:
        ValueError: the defence or an option is unknown or out of range.
    """
    kind = load_object(lookup("defence", DEFENCES, name))
    given = {"seed": seed, "client": client, "n_outputs": n_outputs, "flows": flows}
    takes = inspect.signature(kind).parameters
    known = dict.fromkeys(p for p in takes if p not in given)
    for option in options:
        lookup(f"option of defence {name}", known, option)
    made: Defence = kind(**{key: value for key, value in given.items() if key in takes}, **options)
    return made
