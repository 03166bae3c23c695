"""The suites about labels, people, membership and gradients on a small run: every case gives rows that add up."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from hcqsfl.recipes.profiles import PROFILES
from hcqsfl.recipes.suites import auxiliary, gradients, labels, membership, people, privacy, update_property
from hcqsfl.recipes.suites.scoring import constant, score
from privacy.made_run import made_run, victim_of


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        yield victim_of(made_run(tmp_path_factory.mktemp("run"), patch))


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        overrides = ("federation.label_sharing=true", "federation.rounds=1")
        yield victim_of(made_run(tmp_path_factory.mktemp("run"), patch, *overrides))


def rows_of(victim, topic, *only: str):
    cases = [case for case in topic.cases(victim, PROFILES["smoke"]) if not only or case.key.startswith(only)]
    assert len({case.key for case in cases}) == len(cases)
    rows = [row for case in cases for row in case.run()]
    json.dumps([asdict(row) for row in rows], allow_nan=False)
    return rows


def test_labels_that_clients_kept_leak_to_the_server(kept) -> None:
    rows = rows_of(kept, labels, "label_direction", "label_norm/T7")
    assert all(row.leaks and row.n_units == 3 for row in rows if row.threat == "T1")
    assert [row.facts["not_applicable"] for row in rows if row.threat == "T7"]


def test_labels_that_clients_share_are_no_finding(shared) -> None:
    rows = rows_of(shared, labels)
    assert all(row.score is None and not row.leaks for row in rows)
    assert "100 % of them leak by design" in rows[0].facts["not_applicable"]


def test_people_are_scored_beside_chance_and_what_their_classes_tell(kept) -> None:
    rows = rows_of(kept, people, "siamese/T1/smashed", "siamese/T4", "slicing_dtw/raw", "property_probe")
    by_metric = {(row.attack, row.threat, row.metric): row for row in rows}
    top = by_metric["siamese", "T1", "re-identification top-1"]
    assert set(top.facts["baselines"]) == {"chance", "person by class"}
    assert top.facts["baselines"]["chance"] == pytest.approx(1 / 3)
    assert top.leaks
    assert by_metric["slicing_dtw", "raw", "re-identification top-1"].score > 0.8  # the ceiling
    assert by_metric["siamese", "T4", "re-identification top-1"].n_rows == 2 * 3  # two rounds of three clients
    assert by_metric["siamese", "T1", "open-set EER"].better == "lower"


def test_members_and_others_are_told_apart_beside_what_needs_no_model(kept) -> None:
    rows = rows_of(kept, membership)
    areas = [row for row in rows if row.metric == "membership AUC"]
    assert {row.attack for row in areas} == {"loss_threshold", "lira", "rmia", "cut_membership"}
    assert all(set(row.facts["baselines"]) == {"chance", "distance to known windows"} for row in areas)
    few = [row for row in rows if row.metric == "TPR at 1.0% FPR"]
    assert all("64 non-members do not carry" in row.facts["not_applicable"] for row in few)


def test_nobody_whose_windows_are_asked_about_is_known_to_the_attacker(kept) -> None:
    asked = membership.question(kept, 400)
    people = np.array(asked.units)
    assert not set(asked.known_subject) & set(people)
    assert set(people[asked.member]) == set(kept.prepared.training.subject)
    assert np.count_nonzero(asked.member) == np.count_nonzero(~asked.member)


def test_membership_curves_stand_beside_the_one_that_needs_no_model(kept) -> None:
    rows = rows_of(kept, membership, "loss_threshold", "rmia")
    curves = membership.curves(rows)
    assert list(curves) == ["loss_threshold", "rmia", "no model"]
    assert all(fpr[0] == 0.0 and fpr[-1] == tpr[-1] == 1.0 for fpr, tpr in curves.values())
    (drawn,) = privacy.figures(rows, synthetic=False).values()
    (ax,) = drawn.axes
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert privacy.figures([row for row in rows if row.metric != "membership AUC"], synthetic=False) == {}


def test_a_clients_property_and_few_auxiliary_people_have_rows(kept) -> None:
    (row,) = rows_of(kept, update_property)
    assert row.facts.get("not_applicable") or (row.n_rows == 3 and row.id == "A7")
    few = replace(PROFILES["smoke"], evaluations=40, trials=1, options={"auxiliary": "1,9"})
    cases = {case.key: case for case in auxiliary.cases(kept, few)}
    (one, nine) = (cases[f"decoder_inversion/T2/{n} auxiliary subjects"].run() for n in (1, 9))
    assert {r.knowledge for r in one} == {"auxiliary people; of 1 of them"}
    assert "fewer than 9" in nine[0].facts["not_applicable"]
    (other,) = cases["fora/T1/other data: none"].run()
    assert "--option other=" in other.facts["not_applicable"]
    assert auxiliary.cases(kept, PROFILES["smoke"]) == []


def test_updates_are_inverted_beside_what_other_peoples_windows_would_give(kept) -> None:
    rows = rows_of(kept, gradients, "idlg/T5", "inverting_gradients/T5/FedAvg as")
    by_metric = {(row.attack, row.metric): row for row in rows}
    one = by_metric["idlg", "r"]
    assert "other people's windows, matched likewise" in one.facts["baselines"]
    assert one.facts["parts"] == ["client", "trunk"]
    assert one.n_rows == 2
    recorded = by_metric["inverting_gradients", "r"]
    assert recorded.n_rows == 32  # of the client's 96 windows, as many as are guessed


def test_updates_made_for_the_purpose_are_one_step_of_plain_sgd(kept) -> None:
    setting = gradients.SETTINGS[0]
    truths = [kept.truth(indices) for indices in gradients._batches(kept, setting, 2)]
    seen = gradients.made_updates(kept, truths, setting)
    network = kept.setup.networks()[0]
    network.load_state_dict({**seen.client_states[0][""], **seen.trunk_states[0][""]})
    network.class_weights = kept.prepared.class_weights
    for (name, own), truth in zip(seen.updates[1].items(), truths, strict=True):
        network.zero_grad()
        network.eval().loss(truth.x, truth.y).backward()
        after = {**own, **seen.trunk_states[1][name]}
        for key, parameter in network.named_parameters():
            torch.testing.assert_close(after[key], (parameter - gradients.RATE * parameter.grad).detach())


def test_a_score_that_is_not_defined_is_told_and_is_no_number(kept) -> None:
    row = score(kept, "label_norm", "T1", "", "leak AUC", lambda i: float("nan"), {"chance": constant(0.5)}, ["A", "B"])
    assert row.score is None
    assert "not defined on the 2 rows" in row.facts["not_applicable"]
