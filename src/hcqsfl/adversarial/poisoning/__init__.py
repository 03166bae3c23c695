"""Poisoning by malicious clients: one file an attack, each with a class ``Attack``, and one line here.

``attacker`` says where attackers can act and what they know there, ``infiltrate`` puts them into a federation,
``triggers`` are what backdoors answer to.
"""

import inspect
from typing import Any

from hcqsfl.adversarial.poisoning.attacker import PoisoningAttack
from hcqsfl.registry import load_object, lookup

ATTACKS = {
    "agr_tailored": "hcqsfl.adversarial.poisoning.agr_tailored",
    "alie": "hcqsfl.adversarial.poisoning.alie",
    "backdoor": "hcqsfl.adversarial.poisoning.backdoor",
    "careful_reversal": "hcqsfl.adversarial.poisoning.careful_reversal",
    "distributed_backdoor": "hcqsfl.adversarial.poisoning.distributed_backdoor",
    "durable_backdoor": "hcqsfl.adversarial.poisoning.durable_backdoor",
    "fang_krum": "hcqsfl.adversarial.poisoning.fang_krum",
    "fang_trimmed_mean": "hcqsfl.adversarial.poisoning.fang_trimmed_mean",
    "free_rider": "hcqsfl.adversarial.poisoning.free_rider",
    "gaussian": "hcqsfl.adversarial.poisoning.gaussian",
    "gradient_reversal": "hcqsfl.adversarial.poisoning.gradient_reversal",
    "inner_product": "hcqsfl.adversarial.poisoning.inner_product",
    "label_flip": "hcqsfl.adversarial.poisoning.label_flip",
    "min_max": "hcqsfl.adversarial.poisoning.min_max",
    "min_sum": "hcqsfl.adversarial.poisoning.min_sum",
    "model_replacement": "hcqsfl.adversarial.poisoning.model_replacement",
    "sensor_spoofing": "hcqsfl.adversarial.poisoning.sensor_spoofing",
    "sign_flip": "hcqsfl.adversarial.poisoning.sign_flip",
    "smashed_poisoning": "hcqsfl.adversarial.poisoning.smashed_poisoning",
    "stale_replay": "hcqsfl.adversarial.poisoning.stale_replay",
    "two_sided": "hcqsfl.adversarial.poisoning.two_sided",
    "update_scaling": "hcqsfl.adversarial.poisoning.update_scaling",
}
"""Name to module."""


def make(name: str, **options: Any) -> PoisoningAttack:
    """Return the attack called ``name``.

    Args:
        name: a key of ``ATTACKS``.
        options: what it takes.

    Raises:
        ValueError: the attack or an option is unknown or out of range.
    """
    kind = load_object(lookup("poisoning attack", ATTACKS, name)).Attack
    known = dict.fromkeys(inspect.signature(kind).parameters)
    for option in options:
        lookup(f"option of attack {name}", known, option)
    made: PoisoningAttack = kind(**options)
    return made
