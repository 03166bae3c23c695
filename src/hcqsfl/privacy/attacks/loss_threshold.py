"""Call a member what the model gets right."""

from hcqsfl.privacy.attack import Attack, Budget, Guess, Knowledge
from hcqsfl.privacy.observation import NotApplicable, Observation
from hcqsfl.privacy.references import asked


def run(observation: Observation, knowledge: Knowledge, budget: Budget, seed: int) -> Guess:
    """Score each window by minus its cross entropy under the final model.

    Raises:
        NotApplicable: the model cannot be asked, or no windows are asked about.
    """
    import torch

    if observation.query is None:
        raise NotApplicable(f"{observation.threat} cannot ask the final model")
    x, y = asked(observation)
    budget.spend()
    loss = torch.nn.functional.cross_entropy(observation.query(x), y, reduction="none")
    return Guess(membership=-loss.numpy())


ATTACK = Attack(
    "A10",
    "membership",
    ("T10", "T9"),
    run,
    "Yeom et al. (2018), Privacy risk in machine learning, section 3.1 (adversary 2, without a fixed threshold)",
)
