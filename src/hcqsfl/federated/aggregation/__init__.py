"""Aggregation rules: functions of updates, one file each and one line here.

Every factory takes plain options; what a rule calls ``n_attackers`` is f, the number of clients that may attack. Every
rule names the client whose update it refuses, and none depends on the order in which updates came.

================  =================  =============================  ===========================================
rule              keeps              needs                          withstands
================  =================  =============================  ===========================================
fedavg, fedavgm   nothing, momentum  an example                     no attacker
fedadam           two moments        an example                     no attacker, though its step is bounded
median            nothing            a client                       fewer than half of the clients
trimmed_mean      nothing            n >= 2f + 1, f >= 1            f
krum, multi_krum  nothing            n >= 2f + 3                    f
bulyan            nothing            n >= 4f + 3                    f
geometric_median  nothing            a client                       less than half of the weight
norm_clipping     nothing            a client                       each moves it by radius / n at most
centred_clipping  a centre           a client                       each moves a step by radius / n at most
dnc               nothing            n >= 2f + 1, a client left     f
fltrust           nothing            a root data set                any number that does not point the same way
trust_weighted    nothing            trust from elsewhere           whom it is told not to trust
bucketing         as the inner rule  as the inner rule, of buckets  as the inner rule, in buckets
================  =================  =============================  ===========================================
"""

import inspect
from collections.abc import Callable
from typing import Any

from hcqsfl.federated.aggregation.bucketing import bucketing
from hcqsfl.federated.aggregation.bulyan import bulyan
from hcqsfl.federated.aggregation.centred_clipping import centred_clipping
from hcqsfl.federated.aggregation.dnc import dnc
from hcqsfl.federated.aggregation.fedadam import fedadam
from hcqsfl.federated.aggregation.fedavg import fedavg
from hcqsfl.federated.aggregation.fedavgm import fedavgm
from hcqsfl.federated.aggregation.fltrust import fltrust
from hcqsfl.federated.aggregation.geometric_median import geometric_median
from hcqsfl.federated.aggregation.krum import krum
from hcqsfl.federated.aggregation.median import median
from hcqsfl.federated.aggregation.multi_krum import multi_krum
from hcqsfl.federated.aggregation.norm_clipping import norm_clipping
from hcqsfl.federated.aggregation.trimmed_mean import trimmed_mean
from hcqsfl.federated.aggregation.trust_weighted import trust_weighted
from hcqsfl.federated.update import Aggregator
from hcqsfl.registry import lookup, suggest

AGGREGATORS: dict[str, Callable[..., Aggregator]] = {
    "bucketing": bucketing,
    "bulyan": bulyan,
    "centred_clipping": centred_clipping,
    "dnc": dnc,
    "fedadam": fedadam,
    "fedavg": fedavg,
    "fedavgm": fedavgm,
    "fltrust": fltrust,
    "geometric_median": geometric_median,
    "krum": krum,
    "median": median,
    "multi_krum": multi_krum,
    "norm_clipping": norm_clipping,
    "trimmed_mean": trimmed_mean,
    "trust_weighted": trust_weighted,
}


def make(name: str, **options: Any) -> Aggregator:
    """Return the aggregation rule called ``name``, set up with ``options``.

    Raises:
        ValueError: there is no such rule, or it does not take or lacks an option, or one is out of range.
    """
    rule = lookup("aggregation rule", AGGREGATORS, name)
    parameters = inspect.signature(rule).parameters.values()
    known = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]
    unknown = [option for option in options if option not in known]
    if unknown and len(known) == len(parameters):
        takes = ", ".join(known) or "none"
        raise ValueError(f"{name} has no option {unknown[0]!r}{suggest(unknown[0], known)} Its options: {takes}")
    lacking = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD and p.default is p.empty]
    if missing := [option for option in lacking if option not in options]:
        raise ValueError(f"{name} needs the option {missing[0]}")
    return rule(**options)
