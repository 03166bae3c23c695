"""A1: train a decoder on other people's windows, and let it read the smashed data of the victims.

The server alone (T1) needs a front to make training pairs: it trains a shadow. With a colluding client (T2) it has the
clients' own front, round by round. An attacker who knows the defence trains through it; one who can link the releases
of a window averages them first.

Source: He et al. (2019), Model inversion attacks against collaborative inference, sections 4 and 5 (inverse network);
Gao & Zhang (2023), PCAT, section 4, for the pseudo-client.
"""

from collections import Counter

import torch
from torch import Tensor, nn

from hcqsfl.privacy.attack import Attack, Budget, Guess, Knowledge
from hcqsfl.privacy.inversion.decoder import Fitted, decode, divide, fit, tuned
from hcqsfl.privacy.inversion.halves import Encode, load_front, mixed, smashed_shape, split_front, state_of
from hcqsfl.privacy.inversion.releases import averaged
from hcqsfl.privacy.inversion.shadow import Weights, defended, train_shadow
from hcqsfl.privacy.observation import Observation
from hcqsfl.randomness import torch_seeded


def run(observation: Observation, knowledge: Knowledge, budget: Budget, seed: int) -> Guess:
    """Reconstruct the targets.

    ``knowledge.extra``: ``widths``, the capacities tried; ``match``, false for an attacker whose shadow learns the task
    alone and takes no notice of what crossed.
    """
    shape = smashed_shape(observation)
    seen = averaged(observation, knowledge)
    rounds = [observation.exchanges[target.exchange].round for target in observation.targets]
    white = bool(observation.client_states)
    newest = Counter(rounds).most_common()
    total = budget.evaluations - budget.spent
    found = torch.empty(len(seen.smashed), *knowledge.x.shape[1:])
    fitted: Fitted | None = None
    tried: dict[str, float] = {}
    facts: dict[str, object] = {"front": "colluding client's" if white else "shadow", "averaged": seen.effective}
    for i, (number, count) in enumerate(newest):
        rows = torch.tensor([place for place, n in enumerate(rounds) if n == number])
        # the first gets the tuning and half of what there is; a decoder for another round starts from the one before
        rest = len(rounds) - newest[0][1]
        share = total if not rest else total // 2 if i == 0 else total // 2 * count // rest
        own = round(0.4 * share) if not white else 0
        if white:
            encode, front = _white(observation, knowledge, number)
        else:
            encode = front = _black(observation, knowledge, budget, own, seed, number)
        crossing = defended(encode, front, knowledge, seen.effective)
        if fitted is None:
            fitted, tried = tuned(crossing, shape, knowledge, budget, share - own, seed)
        elif share - own > 0:
            with torch_seeded(seed, "training noise", number):
                parts = divide(knowledge, seed)
                fitted = fit(
                    fitted.decoder, crossing, knowledge.x, parts, budget, share - own, seed, learning_rate=5e-4
                )
        found[rows] = decode(fitted.decoder, seen.smashed[rows], knowledge)
    if fitted is not None:
        facts |= {"auxiliary_mse": fitted.loss, "plateau": fitted.plateau, "capacity": tried, "rounds": len(newest)}
    return Guess(windows=found, facts=facts)


def _white(observation: Observation, knowledge: Knowledge, number: int) -> tuple[Encode, nn.Module]:
    """Return the clients' front, at each call somewhere between the starts of a round and of the next."""
    states = state_of(observation, "client_states", number - 1), state_of(observation, "client_states", number)
    front, _ = split_front(observation, knowledge)

    def encode(x: Tensor) -> Tensor:
        made: Tensor = load_front(front, mixed(states, float(torch.rand(())))).forward(x)
        return made

    return encode, front


def _black(
    observation: Observation, knowledge: Knowledge, budget: Budget, steps: int, seed: int, number: int
) -> nn.Module:
    """Return a shadow of the clients' front in a round."""
    weights = Weights() if knowledge.extra.get("match", True) else Weights(1.0, 0.0)
    return train_shadow(observation, knowledge, budget, steps, seed, weights, number)


ATTACK = Attack(
    id="A1",
    goal="windows",
    threats=("T1", "T2", "T5", "T6"),
    run=run,
    source="He et al. (2019), Model inversion attacks against collaborative inference, sections 4-5",
    adaptive=True,
)
