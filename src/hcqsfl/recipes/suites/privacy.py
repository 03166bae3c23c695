"""Everything about privacy that a reviewer would ask of one training."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from hcqsfl.evaluation.attack_rows import Row
from hcqsfl.evaluation.figures import membership_roc
from hcqsfl.evaluation.pooled import apart
from hcqsfl.recipes.profiles import Case, Profile
from hcqsfl.recipes.suites import (
    auxiliary,
    dependence,
    gradients,
    labels,
    membership,
    people,
    reconstruction,
    update_property,
)
from hcqsfl.recipes.victim import Victim

TOPICS = (labels, people, update_property, membership, reconstruction, auxiliary, gradients, dependence)


def cases(victim: Victim, profile: Profile) -> list[Case]:
    """Return what is run on one training."""
    return [case for topic in TOPICS for case in topic.cases(victim, profile)]


def figures(rows: Sequence[Row], synthetic: bool) -> dict[str, Figure]:
    """Return the figures of this suite's rows: membership ROC curves on logarithmic axes, a trunk each."""
    drawn = {}
    for arm in dict.fromkeys(row.arm for row in rows):
        curves = membership.curves([row for row in rows if row.arm == arm])
        if curves:
            drawn[f"membership_roc_{arm}"] = membership_roc(curves, synthetic=synthetic)
    return drawn


def sentences(rows: Sequence[Row]) -> list[str]:
    """Return where the hybrid leaks more or less than its controls, by paired intervals over subjects."""
    controls = [arm for arm in dict.fromkeys(row.arm for row in rows) if arm != "hybrid"]
    return [sentence for control in controls for sentence in apart(rows, "hybrid", control)]
