"""Evasion: windows and flows changed a little at inference, so that the model errs (threat T9).

One file an attack in ``attacks``, each of which declares an ``ATTACK``, and one line here. An attack asks the model
through an ``Oracle``, which counts and which refuses what the attacker has no access to, and moves inside a ``Region``,
which holds everything that it may reach: a ball round each window, or the flows that an attacker could have sent.
"""

from hcqsfl.adversarial.evasion.attack import Evasion
from hcqsfl.registry import load_object, lookup

EVASIONS = {
    "autopgd_ce": "hcqsfl.adversarial.evasion.attacks.autopgd_ce",
    "autopgd_dlr": "hcqsfl.adversarial.evasion.attacks.autopgd_dlr",
    "caa": "hcqsfl.adversarial.evasion.attacks.caa",
    "capgd": "hcqsfl.adversarial.evasion.attacks.capgd",
    "fgsm": "hcqsfl.adversarial.evasion.attacks.fgsm",
    "genetic": "hcqsfl.adversarial.evasion.attacks.genetic",
    "hop_skip_jump": "hcqsfl.adversarial.evasion.attacks.hop_skip_jump",
    "noise": "hcqsfl.adversarial.evasion.attacks.noise",
    "pgd": "hcqsfl.adversarial.evasion.attacks.pgd",
    "smooth": "hcqsfl.adversarial.evasion.attacks.smooth",
    "square": "hcqsfl.adversarial.evasion.attacks.square",
}
"""Name to module."""


def make(name: str) -> Evasion:
    """Return the attack called ``name``.

    Raises:
        ValueError: there is no such attack.
    """
    attack: Evasion = load_object(lookup("evasion attack", EVASIONS, name)).ATTACK
    return attack
