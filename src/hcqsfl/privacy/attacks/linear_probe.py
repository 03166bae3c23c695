"""Tell people apart by a linear classifier on what crossed."""

from hcqsfl.privacy.attack import Attack, Budget, Guess, Knowledge
from hcqsfl.privacy.enrolment import enrolled, read
from hcqsfl.privacy.observation import Observation
from hcqsfl.privacy.views import compact, standardised


def run(observation: Observation, knowledge: Knowledge, budget: Budget, seed: int) -> Guess:
    """Fit multinomial logistic regression to the enrolled rows, and score everybody on all rows.

    ``Knowledge.extra["view"]`` says what a row is: one of ``hcqsfl.privacy.views.VIEWS``, ``smashed`` unless given.
    Whoever can link releases of one window (``Knowledge.releases``) averages them.

    Raises:
        NotApplicable: what is to be read does not cross.
        ValueError: fewer than two people are enrolled.
    """
    import numpy as np
    import torch
    from sklearn.linear_model import LogisticRegression

    x = compact(standardised(read(observation, knowledge))).numpy()
    places, people, candidates = enrolled(knowledge)
    budget.spend()
    probe = LogisticRegression(max_iter=1000, random_state=0).fit(x[places], people)
    return Guess(identity=torch.from_numpy(np.log(probe.predict_proba(x).clip(1e-12))), candidates=candidates)


ATTACK = Attack(
    "A6",
    "identity",
    ("T1", "T2", "T4", "T5", "T6"),
    run,
    "Alain & Bengio (2017), Understanding intermediate layers using linear classifier probes, section 3, with people "
    "for classes",
    adaptive=True,
)
