"""Auxiliary data: how the reconstruction of windows depends on how many people the attacker has, and on whose they are.

Source: Pasquini et al. (2021), Unleashing the tiger, section 4, and Xu et al. (2024), FORA, section 5.4, for attackers
whose data are of another distribution than the victims'.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from scipy.signal import resample
from torch import Tensor

from hcqsfl import build, config
from hcqsfl.data.windows import Windows
from hcqsfl.evaluation.attack_rows import Row
from hcqsfl.privacy.attack import Knowledge
from hcqsfl.privacy.observation import NotApplicable
from hcqsfl.randomness import numpy_generator
from hcqsfl.recipes.profiles import Case, Profile
from hcqsfl.recipes.suites.reconstruction import Asked, known, reconstructed
from hcqsfl.recipes.suites.scoring import or_refused
from hcqsfl.recipes.victim import Victim

SUBJECTS: dict[str, tuple[int, ...]] = {"paper": (1, 5, 15)}
"""Profile to numbers of auxiliary subjects; none unless named."""

OTHER = {"decoder_inversion": "T2", "fora": "T1"}
"""Attacks that need no labels, so that windows of another data set will do, and under which threat model."""


def cases(victim: Victim, profile: Profile) -> list[Case]:
    """Return decoder inversions with few auxiliary subjects, and attacks with another data set's windows.

    Options: ``auxiliary`` gives other numbers, such as ``1,5``; ``other`` is the settings file of the other data set.
    """
    numbers = SUBJECTS.get(profile.name, ())
    if "auxiliary" in profile.options:
        numbers = tuple(int(n) for n in str(profile.options["auxiliary"]).split(","))
    asked = Asked(victim, profile)
    listed = [
        Case(f"decoder_inversion/{threat}/{n} auxiliary subjects", partial(_few, asked, threat, n))
        for n in numbers
        for threat in ("T2", "T1")
    ]
    if numbers or "other" in profile.options:
        listed += [
            Case(f"{name}/{threat}/other data: {profile.options.get('other', 'none')}", partial(_other, asked, name))
            for name, threat in OTHER.items()
        ]
    return listed


def _few(asked: Asked, threat: str, n: int) -> Sequence[Row]:
    victim, knows = asked.victim, f"{known(asked.victim)[-1]}; of {n} of them"

    def rows() -> Sequence[Row]:
        knowledge = asked.knowledge(known(victim)[-1])
        return reconstructed(asked, "decoder_inversion", threat, knows, of_few(knowledge, n, victim.seed))

    return or_refused(victim, "decoder_inversion", threat, knows, "r", rows)


def of_few(knowledge: Knowledge, n: int, seed: int) -> Knowledge:
    """Return what an attacker knows who has the windows of ``n`` people alone.

    Raises:
        NotApplicable: there are fewer.
    """
    people = np.unique(np.asarray(knowledge.subject))
    if len(people) < n:
        raise NotApplicable(f"there are {len(people)} auxiliary subjects in this fold, fewer than {n}")
    chosen = set(numpy_generator(seed, "few auxiliary subjects").permutation(people)[:n].tolist())
    rows = torch.tensor([i for i, who in enumerate(knowledge.subject) if who in chosen])
    return replace(
        knowledge, x=knowledge.x[rows], y=knowledge.y[rows], subject=[knowledge.subject[int(i)] for i in rows]
    )


def _other(asked: Asked, name: str) -> Sequence[Row]:
    victim, threat, options = asked.victim, OTHER[name], asked.profile.options
    knows = f"windows of another data set ({Path(str(options.get('other', 'none'))).stem})"

    def rows() -> Sequence[Row]:
        if "other" not in options:
            raise NotApplicable("no other data set was named: --option other=configs/pamap2.toml, say")
        settings = config.load(Path(str(options["other"])))
        windows = build.windows(settings, Path(str(options["cache"])))
        own = asked.knowledge(known(victim)[-1])
        x = like(windows, own.x.shape[1], own.x.shape[2], own.sfreq, each=victim.config.model.scaling == "window")
        n = len(x)
        foreign = replace(own, x=x, y=torch.zeros(n, dtype=torch.long), subject=windows.subject.tolist()[:n])
        return reconstructed(asked, name, threat, knows, foreign, trivial=own)

    return or_refused(victim, name, threat, knows, "r", rows)


def like(windows: Windows, n_chans: int, n_times: int, sfreq: float, *, each: bool, most: int = 4000) -> Tensor:
    """Return windows of another data set in the shape of the victims': ``(n, n_chans, n_times)`` float32.

    They are resampled to the victims' rate, cut or repeated to their length, have their channels in order, from the
    first again where there are too few, and mean 0 and deviation 1: of each window, or of each channel.

    Raises:
        NotApplicable: one of the two is a table of rows, and the other holds signals.
    """
    if (windows.n_times == 1) != (n_times == 1):
        raise NotApplicable("windows of signals and rows of a table do not stand for one another")
    x = windows.x[:most][:, np.arange(n_chans) % windows.x.shape[1]].astype(np.float64)
    if n_times > 1:
        length = max(2, round(windows.n_times * sfreq / windows.sfreq))
        x = resample(x, length, axis=2) if length != windows.n_times else x
        x = x[:, :, np.arange(n_times) % length]
    axes = 2 if each and n_times > 1 else (0, 2)
    deviation = x.std(axis=axes, keepdims=True)
    x = (x - x.mean(axis=axes, keepdims=True)) / np.where(deviation > 1e-9, deviation, 1.0)
    return torch.from_numpy(x.astype(np.float32))
