"""From settings to parts: the only place that reads both."""

from hcqsfl.build.arms import Arm, alone_arms, arms, cross_arms
from hcqsfl.build.data import Prepared, clients, make_folds, prepare, scan, windows
from hcqsfl.build.engine import dealt, group, plan, setup
from hcqsfl.build.network import circuit, network
from hcqsfl.build.trust import averages

__all__ = [
    "Arm",
    "Prepared",
    "alone_arms",
    "arms",
    "averages",
    "circuit",
    "clients",
    "cross_arms",
    "dealt",
    "group",
    "make_folds",
    "network",
    "plan",
    "prepare",
    "scan",
    "setup",
    "windows",
]
