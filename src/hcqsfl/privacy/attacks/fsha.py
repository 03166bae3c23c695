"""A4: decode what clients send to a server that has hijacked their training.

The hijacking itself happens in training (``hcqsfl.privacy.hijacking``); what it leaves is a decoder, which reads the
smashed data of the last rounds.

Source: Pasquini et al. (2021), Unleashing the tiger: inference attacks on split learning, section 3.
"""

import torch

from hcqsfl.privacy.attack import Attack, Budget, Guess, Knowledge
from hcqsfl.privacy.inversion.decoder import decode
from hcqsfl.privacy.inversion.releases import averaged
from hcqsfl.privacy.observation import NotApplicable, Observation


def run(observation: Observation, knowledge: Knowledge, budget: Budget, seed: int) -> Guess:
    """Reconstruct the targets with ``knowledge.extra["decoder"]``, which the hijacking server trained."""
    decoder = knowledge.extra.get("decoder")
    if not isinstance(decoder, torch.nn.Module):
        raise NotApplicable("fsha reads a training that its server hijacked; this one was honest")
    budget.spend()
    return Guess(windows=decode(decoder, averaged(observation, knowledge).smashed, knowledge))


ATTACK = Attack(
    id="A4",
    goal="windows",
    threats=("T3",),
    run=run,
    source="Pasquini et al. (2021), Unleashing the tiger: inference attacks on split learning, section 3",
    adaptive=True,
)
