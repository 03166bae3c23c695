"""What an adversary of a suite knows of the clients: how they defend themselves."""

from hcqsfl.models.defence import Defence
from hcqsfl.privacy import defences
from hcqsfl.privacy.inversion.coded import Coded
from hcqsfl.randomness import derive
from hcqsfl.recipes.victim import Victim
from hcqsfl.split import codecs


def defence_as_known(victim: Victim) -> Defence | None:
    """Return the clients' defence, and the codec after it, as an attacker runs them: with noise of its own."""
    d, f = victim.config.defence, victim.config.federation
    made = None
    if d.name != "none":
        seed, n_outputs = derive(victim.seed, "attacker"), len(victim.windows.classes)
        made = defences.make(d.name, seed, "attacker", n_outputs, **d.options)
    if f.codec == "none":
        return made
    return Coded(codecs.make(f.codec, **f.codec_options), made)
