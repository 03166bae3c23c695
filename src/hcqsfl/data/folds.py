"""Divide windows into training, validation and test so that no subject, or no stretch of time, is in two of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hcqsfl.data.windows import Windows
from hcqsfl.randomness import numpy_generator


@dataclass(frozen=True, eq=False)
class Fold:
    """One division of the windows, as indices.

    Attributes:
        name: the test subjects, or ``chronological``.
        train, validation, test: indices into the windows; ``validation`` may be empty.
        by: what is disjoint between them: ``"subject"`` or ``"time"``.
    """

    name: str
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    by: str


def leave_one_subject_out(windows: Windows, *, n_validation: int = 1, seed: int = 0) -> list[Fold]:
    """Return one fold a subject, that subject being the test set.

    Args:
        windows: what to divide.
        n_validation: subjects of the training part that are set aside to choose the round by; 0 where the number of
            rounds is fixed beforehand and nothing is chosen.
        seed: draws the validation subjects.

    Raises:
        ValueError: there are too few subjects.
    """
    subjects = np.unique(windows.subject)
    return _by_groups(windows, [[s] for s in subjects], n_validation, seed, "leave-one-subject-out")


def grouped_k_fold(windows: Windows, k: int, *, n_validation: int = 1, seed: int = 0) -> list[Fold]:
    """Return ``k`` folds whose test sets are disjoint groups of subjects of about equal numbers.

    Args:
        windows: what to divide.
        k: folds, at least 2.
        n_validation: as in ``leave_one_subject_out``.
        seed: draws the groups and the validation subjects.

    Raises:
        ValueError: there are fewer subjects than folds, or too few to leave any to train on.
    """
    subjects = np.unique(windows.subject)
    if not 2 <= k <= len(subjects):
        raise ValueError(
            f"{k} folds were asked for; there must be at least 2 and at most one a subject, {len(subjects)}"
        )
    order = numpy_generator(seed, "folds").permutation(subjects)
    groups = [sorted(group) for group in np.array_split(order, k)]
    return _by_groups(windows, groups, n_validation, seed, f"grouped {k}-fold")


def _by_groups(
    windows: Windows, groups: Sequence[Sequence[str]], n_validation: int, seed: int, scheme: str
) -> list[Fold]:
    subjects = np.unique(windows.subject)
    needed = max(map(len, groups)) + n_validation + 1
    if len(subjects) < needed:
        raise ValueError(
            f"{scheme} with {n_validation} validation subjects needs at least {needed} subjects; there "
            f"{'is' if len(subjects) == 1 else 'are'} {len(subjects)}: {', '.join(subjects)}"
        )
    folds = []
    for group in groups:
        name = "+".join(group)
        rest = np.setdiff1d(subjects, group)
        held_out = _validation_subjects(windows, rest, n_validation, seed, name)
        folds.append(
            Fold(
                name=name,
                train=np.flatnonzero(np.isin(windows.subject, np.setdiff1d(rest, held_out))),
                validation=np.flatnonzero(np.isin(windows.subject, held_out)),
                test=np.flatnonzero(np.isin(windows.subject, group)),
                by="subject",
            )
        )
    return folds


def _validation_subjects(windows: Windows, rest: np.ndarray, n: int, seed: int, fold: str) -> np.ndarray:
    """Draw among the subjects with the most classes: one with a single activity could not tell two rounds apart."""
    drawn = numpy_generator(seed, "validation", fold).permutation(rest)
    n_classes = np.array([len(np.unique(windows.y[windows.subject == s])) for s in drawn])
    return drawn[np.argsort(-n_classes, kind="stable")][:n]


def chronological(windows: Windows, *, test: float = 0.2, validation: float = 0.1, gap: int = 0) -> list[Fold]:
    """Return one fold: of each stratum the first windows in time train, the next validate, the last test.

    For data whose classes were recorded one after the other, where a single cut through time would leave classes out.
    A stratum is a class, or what is finer: each type of attack where the classes are attack and normal.

    Args:
        windows: what to divide; ``start`` tells their order.
        test, validation: shares of each stratum.
        gap: windows of each stratum left out at each border, so that neighbours in time do not face one another.

    Raises:
        ValueError: the shares leave nothing to train on, or a stratum is too small to be divided.
    """
    if not (0 < test < 1 and 0 <= validation < 1 and test + validation < 1):
        raise ValueError(f"shares of {test} to test and {validation} to validate leave nothing to train on")
    parts: dict[str, list[np.ndarray]] = {"train": [], "validation": [], "test": []}
    for stratum in np.unique(windows.stratum):
        members = np.flatnonzero(windows.stratum == stratum)
        members = members[np.argsort(windows.start[members], kind="stable")]
        n_test, n_validation = round(test * len(members)), round(validation * len(members))
        n_train = len(members) - n_test - n_validation
        divided = {
            "train": members[: n_train - gap],
            "validation": members[n_train : n_train + n_validation - (gap if n_validation else 0)],
            "test": members[n_train + n_validation :],
        }
        for name, index in divided.items():
            if not len(index) and not (name == "validation" and validation == 0):
                raise ValueError(
                    f"class {windows.classes[windows.y[members[0]]]} has a stratum of {len(members)} windows, too "
                    f"few to give each of training, validation ({validation:.0%}) and test ({test:.0%}) one with {gap} "
                    "left out at the borders"
                )
            parts[name].append(index)
    joined = {name: np.sort(np.concatenate(index)) for name, index in parts.items()}
    return [Fold("chronological", joined["train"], joined["validation"], joined["test"], by="time")]
