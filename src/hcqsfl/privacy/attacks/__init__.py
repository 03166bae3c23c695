"""Attacks on what crosses: one file an attack, each of which declares an ``ATTACK``; one line here.

An attack imports neither data sets nor the metrics that judge it, and is given an ``Observation`` and ``Knowledge``
alone.
"""

from hcqsfl.privacy.attack import Attack
from hcqsfl.registry import load_object, lookup

ATTACKS: dict[str, str] = {
    "cut_membership": "hcqsfl.privacy.attacks.cut_membership",
    "decoder_inversion": "hcqsfl.privacy.attacks.decoder_inversion",
    "difference_inversion": "hcqsfl.privacy.attacks.difference_inversion",
    "dlg": "hcqsfl.privacy.attacks.dlg",
    "first_layer": "hcqsfl.privacy.attacks.first_layer",
    "fora": "hcqsfl.privacy.attacks.fora",
    "fsha": "hcqsfl.privacy.attacks.fsha",
    "idlg": "hcqsfl.privacy.attacks.idlg",
    "inverting_gradients": "hcqsfl.privacy.attacks.inverting_gradients",
    "label_clusters": "hcqsfl.privacy.attacks.label_clusters",
    "label_denoising": "hcqsfl.privacy.attacks.label_denoising",
    "label_direction": "hcqsfl.privacy.attacks.label_direction",
    "label_matching": "hcqsfl.privacy.attacks.label_matching",
    "label_norm": "hcqsfl.privacy.attacks.label_norm",
    "linear_probe": "hcqsfl.privacy.attacks.linear_probe",
    "lira": "hcqsfl.privacy.attacks.lira",
    "loss_threshold": "hcqsfl.privacy.attacks.loss_threshold",
    "model_completion": "hcqsfl.privacy.attacks.model_completion",
    "property_probe": "hcqsfl.privacy.attacks.property_probe",
    "rmia": "hcqsfl.privacy.attacks.rmia",
    "sdar": "hcqsfl.privacy.attacks.sdar",
    "siamese": "hcqsfl.privacy.attacks.siamese",
    "slicing_dtw": "hcqsfl.privacy.attacks.slicing_dtw",
    "unsplit": "hcqsfl.privacy.attacks.unsplit",
    "update_property": "hcqsfl.privacy.attacks.update_property",
    "white_box_optimisation": "hcqsfl.privacy.attacks.white_box_optimisation",
}
"""Name to module."""


def make(name: str) -> Attack:
    """Return the attack called ``name``.

    Raises:
        ValueError: there is no such attack.
    """
    attack: Attack = load_object(lookup("attack", ATTACKS, name)).ATTACK
    return attack
