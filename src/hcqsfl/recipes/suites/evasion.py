"""Everything about evasion that a reviewer would ask of one training."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from hcqsfl.evaluation.attack_rows import Row
from hcqsfl.evaluation.figures import CURVES, robustness_curve
from hcqsfl.evaluation.pooled import differences
from hcqsfl.recipes.profiles import Case, Profile
from hcqsfl.recipes.suites import evasion_flows, evasion_signals
from hcqsfl.recipes.suites.evasion_sweep import is_flows
from hcqsfl.recipes.victim import Victim


def cases(victim: Victim, profile: Profile) -> list[Case]:
    """Return what is run on one training."""
    topic = evasion_flows if is_flows(victim) else evasion_signals
    return topic.cases(victim, profile)


def figures(rows: Sequence[Row], synthetic: bool) -> dict[str, Figure]:
    """Return file names and what is drawn of the rows of all trainings; nothing where there is no curve."""
    figure = robustness_curve(rows, synthetic=synthetic)
    return {} if figure is None else {"evasion": figure}


def sentences(rows: Sequence[Row]) -> list[str]:
    """Return how far the hybrid's curves lie from those of its controls, paired, with intervals over subjects."""
    drawn = [row for row in rows if row.metric in CURVES]
    controls = [arm for arm in dict.fromkeys(row.arm for row in drawn) if arm != "hybrid"]
    return [str(found) for control in controls for found in differences(drawn, "hybrid", control)]
