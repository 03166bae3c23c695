"""A monitor's verdicts reach the parts that are aggregated, whichever was wired first."""

import torch

from hcqsfl.adversarial.detection.watch import Watch
from hcqsfl.federated.update import Update


class Monitor:
    """Trusts client a alone, and remembers what it was asked about."""

    def __init__(self) -> None:
        self.verdicts: list = []
        self.asked: list = []

    def __call__(self, state, updates):
        self.asked.append(float(state["w"]))
        self.verdicts.append(type("Verdict", (), {"trust": {"a": 1.0, "b": 0.0}}))
        return self.verdicts[-1].trust


def test_the_part_that_is_aggregated_first_is_judged_and_the_others_follow() -> None:
    monitor = Monitor()
    watch = Watch(monitor)
    _kept, judged, following = watch.rule(), watch.rule(), watch.rule()  # a part that clients keep is never aggregated
    for base in (0.0, 10.0):
        state = {"w": torch.tensor(base)}
        updates = [Update("a", {"w": torch.tensor(base + 1)}, 0, 5), Update("b", {"w": torch.tensor(base - 9)}, 0, 5)]
        assert judged(state, updates)["w"] == base + 1
        assert following(state, updates)["w"] == base + 1
    assert monitor.asked == [0.0, 10.0]
