"""Everything about privacy that a reviewer would ask of one training."""

from hcqsfl.recipes.attack import Case, Profile
from hcqsfl.recipes.suites import gradients, labels, membership, people, reconstruction
from hcqsfl.recipes.victim import Victim

TOPICS = (labels, people, membership, reconstruction, gradients)


def cases(victim: Victim, profile: Profile) -> list[Case]:
    """Return what is run on one training."""
    return [case for topic in TOPICS for case in topic.cases(victim, profile)]
