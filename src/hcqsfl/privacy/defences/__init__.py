"""Defences on the client's side of the cut: one file a defence, each with a class; one line here."""

import inspect
from typing import Any

from hcqsfl.models.defence import Defence
from hcqsfl.registry import load_object, lookup

DEFENCES: dict[str, str] = {
    "gaussian": "hcqsfl.privacy.defences.gaussian:Gaussian",
    "memoised_gaussian": "hcqsfl.privacy.defences.gaussian:MemoisedGaussian",
    "nopeek": "hcqsfl.privacy.defences.nopeek:NoPeek",
}
"""Name to ``module:class``; a class takes ``seed`` and ``client`` besides its options."""


def make(name: str, seed: int, client: str, **options: Any) -> Defence:
    """Return the defence called ``name`` for one client.

    Raises:
        ValueError: the defence or an option is unknown or out of range.
    """
    kind = load_object(lookup("defence", DEFENCES, name))
    known = dict.fromkeys(p for p in inspect.signature(kind).parameters if p not in ("seed", "client"))
    for option in options:
        lookup(f"option of defence {name}", known, option)
    made: Defence = kind(seed=seed, client=client, **options)
    return made
