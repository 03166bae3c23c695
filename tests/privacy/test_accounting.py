"""Epsilons: those of others, composed over releases, and never about two things at once."""

import math

import pytest

from hcqsfl.privacy import accounting
from hcqsfl.privacy.accounting import Statement, as_group, gaussian_epsilon, labels, models, smashed_data


@pytest.mark.parametrize(("releases", "known"), [(1, 1.99), (50, 20.7), (500, 109.0)])
def test_fresh_noise_composes_over_releases_to_the_published_figures(releases: int, known: float) -> None:
    found = smashed_data(2.0, releases)
    assert found.epsilon == pytest.approx(known, rel=0.01)
    assert found.releases == releases
    assert found.relation == "replace one window"


def test_the_exact_gaussian_curve_is_dp_accountings() -> None:
    for noise, times in ((2.0, 1), (2.0, 50), (1.0, 3), (5.0, 7)):
        exact = gaussian_epsilon(noise / math.sqrt(times), 1e-5)
        assert exact == pytest.approx(accounting._pld_gaussian(noise, times, 1e-5), rel=2e-3)


def test_dp_sgd_is_accounted_by_prv_and_checked_by_pld() -> None:
    found = models(1.0, 0.01, 2000)
    assert found.accountant.startswith("PRV")
    assert found.epsilon == pytest.approx(2.594, abs=0.005)
    assert found.check == pytest.approx(2.584, abs=0.002)
    assert any("crosses the cut" in note for note in found.notes)


def test_two_halves_in_one_step_cost_as_much_as_one_with_less_noise() -> None:
    joint = models(math.sqrt(2), 0.05, 40, halves=2)
    assert joint.epsilon == pytest.approx(models(1.0, 0.05, 40).epsilon, rel=1e-6)


def test_accountants_that_disagree_are_not_believed() -> None:
    with pytest.raises(ValueError, match="two accountants disagree"):
        accounting._agree(2.38, 2.58)  # Opacus' Gaussian accountant against PLD


def test_epsilons_of_smashed_data_and_of_models_do_not_add_up() -> None:
    cut, model = smashed_data(2.0, 1), Statement("models", 1.0, 1e-5, "window", "replace one window", "PRV", 1)
    with pytest.raises(TypeError, match="two claims and do not add up"):
        cut + model
    subject = smashed_data(2.0, 1, windows=4)
    with pytest.raises(TypeError, match="do not add up"):
        cut + subject
    assert (cut + cut).epsilon == 2 * cut.epsilon
    assert (cut + cut).delta == 2e-5


def test_memoised_noise_counts_once_while_the_front_stands_still_and_not_at_all_while_it_moves() -> None:
    still = smashed_data(2.0, 50, memoised=True, front_moves=False)
    assert still.epsilon == smashed_data(2.0, 1).epsilon
    assert still.releases == 1
    moving = smashed_data(2.0, 50, memoised=True)
    assert math.isinf(moving.epsilon)
    assert "cancels" in moving.notes[0]


def test_a_subject_with_hundreds_of_windows_is_told_to_be_vacuous() -> None:
    subject = smashed_data(2.0, 1, windows=400)
    assert subject.epsilon == pytest.approx(gaussian_epsilon(2.0 / 20, 1e-5))
    assert subject.vacuous
    assert "practically vacuous" in str(subject)
    group = as_group(Statement("models", 2.0, 1e-5, "window", "add or remove one window", "PRV", 100), 400)
    assert math.isinf(group.epsilon)
    assert "says nothing" in str(group)


def test_overlapping_windows_are_told_of() -> None:
    assert "lies in up to 4" in str(smashed_data(2.0, 1, overlap=0.75))


def test_a_lie_that_is_kept_is_counted_once() -> None:
    assert labels(2.0, releases=50).epsilon == 2.0
    assert labels(2.0, memoised=False, releases=50).epsilon == 100.0


def test_next_to_no_noise_is_told_by_an_upper_bound_at_once() -> None:
    little = models(0.02, 0.25, 100)
    assert little.epsilon == pytest.approx(gaussian_epsilon(0.002, 1e-5))
    assert "upper bound" in little.accountant
    assert little.vacuous
    assert models(0.5, 0.25, 20).epsilon < gaussian_epsilon(0.5 / math.sqrt(20), 1e-5)
