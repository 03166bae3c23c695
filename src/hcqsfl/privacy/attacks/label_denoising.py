"""See through labels that were told falsely: what crossed for the windows says which of them are likely."""

import numpy as np
import torch

from hcqsfl.privacy.attack import Attack, Budget, Guess, Knowledge
from hcqsfl.privacy.attacks import label_direction
from hcqsfl.privacy.few_labels import refuse_shared
from hcqsfl.privacy.observation import Observation
from hcqsfl.privacy.views import compact, rows, standardised


def run(observation: Observation, knowledge: Knowledge, budget: Budget, seed: int) -> Guess:
    """Read the told labels off the gradients, learn classes from smashed data and told labels, and weigh both by Bayes.

    With randomised response a label is told truly with a known chance ``t``, else one of the others. A classifier of
    told labels from smashed data estimates ``p(told | z)``, which is ``p(true | z)`` blurred by a known matrix; that is
    undone, and the label told for this very window multiplied in. Who does not know the defence (``Knowledge.defence``
    without a ``truth``) takes what is told at its word.

    Raises:
        NotApplicable: labels are shared, or no gradient of the features crosses.
        ValueError: the known labels are of fewer than two classes.

    Source: Patrini et al. (2017), Making deep neural networks robust to label noise, theorem 1 (backward correction);
    Wu et al. (2023), Does label differential privacy prevent label inference attacks?, section 3, for the attacker who
    has a classifier of his own.
    """
    from sklearn.linear_model import LogisticRegression

    refuse_shared(observation)
    told = label_direction.run(observation, knowledge, budget, seed).labels
    assert told is not None
    places, k = told.argmax(dim=1), knowledge.n_outputs
    truth = float(getattr(knowledge.defence, "truth", 1.0))
    lie = (1 - truth) / max(k - 1, 1)
    if truth - lie < 1e-3 or len(places.unique()) < 2:
        return Guess(labels=told, facts={"truth": truth})
    x = compact(standardised(rows(observation, "smashed").flatten(1))).numpy()
    budget.spend()
    probe = LogisticRegression(max_iter=1000, C=0.1, random_state=0).fit(x, places.numpy())
    blurred = np.full((len(x), k), lie)
    blurred[:, probe.classes_] = probe.predict_proba(x)
    likely = ((blurred - lie) / (truth - lie)).clip(1e-3)
    heard = np.full((len(x), k), max(lie, 1e-6))
    heard[np.arange(len(x)), places.numpy()] = truth
    scores = np.log(likely / likely.sum(axis=1, keepdims=True)) + np.log(heard)
    return Guess(labels=torch.from_numpy(scores).float(), facts={"truth": truth})


ATTACK = Attack(
    "A9",
    "labels",
    ("T1", "T2", "T5", "T6"),
    run,
    "Wu et al. (2023), Does label differential privacy prevent label inference attacks?, section 3; Patrini et al. "
    "(2017), Making deep neural networks robust to label noise, theorem 1",
    adaptive=True,
)
