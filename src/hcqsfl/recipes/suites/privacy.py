"""Everything about privacy that a reviewer would ask of one training."""

from hcqsfl.recipes.attack import Case, Profile
from hcqsfl.recipes.victim import Victim


def cases(victim: Victim, profile: Profile) -> list[Case]:
    """Return what is run on one training."""
    return []
