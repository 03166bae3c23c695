"""Scores with intervals over subjects."""

import numpy as np
import pytest

from hcqsfl.evaluation.clustered import compare


def test_a_gain_over_the_trivial_guess_is_resampled_in_pairs_and_in_its_own_direction() -> None:
    rng = np.random.default_rng(0)
    hard = rng.normal(size=8).repeat(5)  # what a subject adds to both scores cancels in a paired difference
    attack, trivial = hard + 1.0, hard + rng.normal(0, 0.01, 40)
    units = [f"P{i}" for i in range(8) for _ in range(5)]
    found = compare(lambda i: attack[i].mean(), lambda i: trivial[i].mean(), units, 0, 200)
    assert found.gain.value == pytest.approx(attack.mean() - trivial.mean())
    assert found.gain.high - found.gain.low < 0.05 < found.score.high - found.score.low
    lower = compare(lambda i: attack[i].mean(), lambda i: trivial[i].mean(), units, 0, 200, higher=False)
    assert (lower.gain.value, lower.gain.high) == (-found.gain.value, -found.gain.low)
    assert compare(lambda i: 1.0, lambda i: 0.5, ["A"] * 3, 0).gain.low is None
    with pytest.raises(ValueError, match="no rows"):
        compare(lambda i: 1.0, lambda i: 0.5, [], 0)
