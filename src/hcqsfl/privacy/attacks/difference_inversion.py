"""A1 against memoised noise: the noise of a window is always the same, the front is not, and differences tell it.

Averaging the releases of a window leaves constant noise where it is. What is left of each release once the window's own
mean over rounds is taken off holds none of it: it tells how the front moved at that window. With a colluding client the
fronts of all rounds are known, and a decoder learns which window makes a front's moves look like that.

Where the front stands still there is nothing to subtract, and the guess falls back on the noisy mean. A server without
the fronts would have to imitate each round's; what it can find is bounded by what this attack finds.

Source: Erlingsson et al. (2014), RAPPOR, section 3.1, which asks that a value must not change for memoising to hold;
He et al. (2019), Model inversion attacks against collaborative inference, sections 4 and 5, for the decoder.
"""

import torch
from torch import Tensor, nn

from hcqsfl.federated.update import State
from hcqsfl.models.defence import Defence
from hcqsfl.privacy.attack import Attack, Budget, Guess, Knowledge
from hcqsfl.privacy.inversion.decoder import decode, tuned
from hcqsfl.privacy.inversion.halves import load_front, mixed, split_front, state_of
from hcqsfl.privacy.inversion.releases import apart, by_round, laid_out, widest
from hcqsfl.privacy.observation import NotApplicable, Observation
from hcqsfl.randomness import torch_generator

MOST_ROUNDS = 4
"""Fronts through which each auxiliary window is sent."""

Fronts = tuple[nn.Module, tuple[State, State]]
"""A module, and the states between which clients held it during a round."""


def run(observation: Observation, knowledge: Knowledge, budget: Budget, seed: int) -> Guess:
    """Reconstruct the targets from their releases in several rounds.

    Raises:
        NotApplicable: the fronts are not seen, or no window was released in two rounds that the attacker can link.
    """
    if not observation.client_states:
        raise NotApplicable(f"differences tell nothing without the fronts, which {observation.threat} lacks")
    seen = by_round(observation, knowledge)
    rounds = widest(seen, MOST_ROUNDS)
    if len(rounds) < 2:
        raise NotApplicable("no window was seen in two rounds that could be linked: there is nothing to subtract")
    stacked, there = laid_out(seen, rounds)
    fronts = [_between(observation, knowledge, number) for number in rounds]
    generator = torch_generator(seed, "which rounds")

    def crossing(x: Tensor) -> Tensor:
        made = torch.stack([_sent(each, knowledge.defence, x) for each in fronts], dim=1)
        present = there[torch.randint(len(there), (len(x),), generator=generator)]
        return apart(made, present)

    smashed = apart(stacked, there)
    fitted, tried = tuned(crossing, smashed.shape[1:], knowledge, budget, budget.evaluations - budget.spent, seed)
    facts = {
        "front": "colluding client's",
        "rounds": rounds,
        "rounds_linked": float(there.sum(dim=1).float().mean()),
        "auxiliary_mse": fitted.loss,
        "plateau": fitted.plateau,
        "capacity": tried,
    }
    return Guess(windows=decode(fitted.decoder, smashed, knowledge), facts=facts)


def _between(observation: Observation, knowledge: Knowledge, number: int) -> Fronts:
    states = state_of(observation, "client_states", number - 1), state_of(observation, "client_states", number)
    return split_front(observation, knowledge)[0], states


@torch.no_grad()
def _sent(fronts: Fronts, defence: nn.Module | None, x: Tensor) -> Tensor:
    """Return what crosses for windows somewhere within a round; memoised noise is the same in each."""
    front, states = fronts
    smashed: Tensor = load_front(front, mixed(states, float(torch.rand(())))).forward(x)
    if isinstance(defence, Defence):
        defence.stand_behind(front)
        smashed = defence(smashed, x)
    return smashed


ATTACK = Attack(
    id="A1",
    goal="windows",
    threats=("T2", "T5"),
    run=run,
    source="Erlingsson et al. (2014), RAPPOR, section 3.1; He et al. (2019), Model inversion attacks against "
    "collaborative inference, sections 4-5",
    adaptive=True,
)
