"""What an adversary of a suite knows of the clients: how they defend themselves."""

from dataclasses import replace

from torch import Tensor

from hcqsfl.models.defence import Defence
from hcqsfl.privacy import defences
from hcqsfl.privacy.defences.two_pi import without_turns
from hcqsfl.privacy.inversion.coded import Coded
from hcqsfl.privacy.observation import Observation
from hcqsfl.randomness import derive
from hcqsfl.recipes.victim import Victim
from hcqsfl.split import codecs


def defence_as_known(victim: Victim) -> Defence | None:
    """Return the clients' defence, and the codec after it, as an attacker runs them: with noise of its own."""
    d, f = victim.config.defence, victim.config.federation
    made: Defence | None = None
    if d.name == "two_pi":
        made = Unturned()
    elif d.name != "none":
        seed, n_outputs = derive(victim.seed, "attacker"), len(victim.windows.classes)
        made = defences.make(d.name, seed, "attacker", n_outputs, **d.options)
    if f.codec == "none":
        return made
    return Coded(codecs.make(f.codec, **f.codec_options), made)


class Unturned(Defence):
    """What is left of angles without their whole turns: how an attacker reads them who knows that turns were added."""

    def forward(self, smashed: Tensor, x: Tensor | None = None) -> Tensor:
        """Return angles in ``[-pi, pi)``."""
        return without_turns(smashed)


def as_read(victim: Victim, observation: Observation) -> Observation:
    """Return an observation as it is read by one who knows the defence: without whole turns, where there are any."""
    if victim.config.defence.name != "two_pi":
        return observation
    return replace(observation, exchanges=[replace(e, smashed=without_turns(e.smashed)) for e in observation.exchanges])
