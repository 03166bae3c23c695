import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from hcqsfl.adversarial import poisoning
from hcqsfl.adversarial.poisoning.infiltrate import infiltrate
from hcqsfl.data.folds import chronological
from hcqsfl.data.recording import Recording
from hcqsfl.data.windows import Windows, slide_all
from hcqsfl.models import fronts, trunks
from hcqsfl.models.heads import linear_head
from hcqsfl.models.learner import Network
from hcqsfl.models.plan import Plan
from hcqsfl.models.protocols import set_up
from hcqsfl.quantum import circuits
from hcqsfl.randomness import torch_seeded
from hcqsfl.recipes.detect import ARMS, Arm, detect, figure
from hcqsfl.recipes.detect_clients import detect_clients

QUICK = (
    Arm("quantum machine", "quantum_ocsvm"),
    Arm("Gaussian machine", "rbf_ocsvm"),
    Arm("Mahalanobis", "mahalanobis"),
    Arm("Mahalanobis, all columns", "mahalanobis", reduced=False),
)


def flows(n: int = 300) -> Windows:
    """Normal rows, one attack far away, and one that cannot be told from them."""
    generator = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], n)
    x = generator.normal(size=(3 * n, 6)) * np.array([3, 2, 1, 0.5, 0.1, 0.1])
    x[y == 1, 4] += 4
    hosts = [np.arange(host, 3 * n, 7) for host in range(7)]
    return slide_all(
        [
            Recording(
                signal=x[rows].T.astype(np.float32),
                labels=y[rows],
                sfreq=1.0,
                channels=tuple("abcdef"),
                units=("byte",) * 6,
                subject=f"h{host}",
                classes=("normal", "flood", "mimicry"),
                position=rows,
            )
            for host, rows in enumerate(hosts)
        ],
        1.0,
    )


def test_detectors_are_compared_on_the_same_rows_and_say_what_they_find(tmp_path) -> None:
    windows = flows()
    (fold,) = chronological(windows)
    options = {"n_features": 4, "scaling": "standard", "seeds": (0, 1), "n_resamples": 100}
    found = detect(windows, fold, arms=QUICK, out=tmp_path, **options)
    assert found.n_test == {"normal": 60, "flood": 60, "mimicry": 60}
    assert (found.n_train, found.n_calibration, found.n_columns) == (210, 30, 6)
    for row in found.rows:
        assert row.by_type["flood"] > 0.8
        assert row.by_type["mimicry"] < 0.3
        # the far attack ranks above all, the mimicry by chance: 0.75 together
        assert abs(row.auroc.value - 0.75) < 0.08
        assert row.auroc.low <= row.auroc.value <= row.auroc.high
        assert row.recall.low <= row.recall.value <= row.recall.high
        assert abs(row.recall.value - (row.by_type["flood"] + row.by_type["mimicry"]) / 2) < 1e-12
        assert row.false_alarms.value < 0.15
    assert len(found.sentences) == 2
    assert all("quantum machine" in sentence for sentence in found.sentences)
    with (tmp_path / "detection.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [row["detector"] for row in table] == [arm.title for arm in QUICK]
    assert float(table[0]["auroc"]) == found.rows[0].auroc.value
    assert json.loads((tmp_path / "detection.json").read_text())["rows"][0]["arm"]["detector"] == "quantum_ocsvm"
    assert (tmp_path / "detection.svg").read_text().startswith("<?xml")
    assert len(figure(found).axes) == 2


def test_attacks_in_the_training_part_change_nothing() -> None:
    windows = flows(100)
    (fold,) = chronological(windows)
    x = windows.x.copy()
    attacks = fold.train[windows.y[fold.train] != 0]
    x[attacks] = 1e6
    other = replace(windows, x=x)
    options = {"n_features": 3, "seeds": (0,), "arms": QUICK[1:3], "n_resamples": 20}
    for a, b in zip(detect(windows, fold, **options).rows, detect(other, fold, **options).rows, strict=True):
        assert (a.auroc, a.recall, a.by_type) == (b.auroc, b.recall, b.by_type)


def test_whole_subjects_are_resampled_where_asked() -> None:
    windows = flows(100)
    (fold,) = chronological(windows)
    found = detect(windows, fold, n_features=3, seeds=(0,), arms=QUICK[2:3], n_resamples=50, unit="subject")
    assert found.rows[0].recall.n_units == 7
    assert "7 subjects" in found.rows[0].auroc.method


def test_impossible_tables_are_refused() -> None:
    windows = flows(50)
    (fold,) = chronological(windows)
    with pytest.raises(ValueError, match="did you mean 'normal'"):
        detect(windows, fold, normal="normaal")
    one_class = windows.take(windows.y == 0)
    (small,) = chronological(one_class)
    with pytest.raises(ValueError, match="0 attack test rows"):
        detect(one_class, small)
    with pytest.raises(ValueError, match="at most 7"):
        detect(windows, fold, n_features=9, arms=QUICK)


def test_the_table_has_every_detector_and_peers_on_both_kinds_of_features() -> None:
    from hcqsfl.adversarial.detection import DETECTORS

    assert {arm.detector for arm in ARMS} == set(DETECTORS)
    classical = {arm.detector for arm in ARMS if not arm.quantum}
    assert {arm.detector for arm in ARMS if not arm.reduced} == classical
    assert ARMS[0].quantum


def federation(seed: int, make_aggregator, wear, poisoned):
    """Six clients of a small hybrid network in SplitFed, some of whom turn their labels around."""
    generator = torch.Generator().manual_seed(seed)
    data = {}
    for i in range(6):
        y = torch.randint(2, (48,), generator=generator)
        data[f"c{i}"] = (torch.randn(48, 5, 1, generator=generator) + 2 * (y[:, None, None] - 0.5), y)
    with torch_seeded(seed, "init"):
        circuit = circuits.make("basic_entangler", 3, 1)
        network = Network(
            fronts.make("tabular", 5, 1, 3, width=8), trunks.make("hybrid", 3, 4, circuit, "fused"), linear_head(4, 2)
        )
    plan = Plan(
        make_optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.3),
        make_aggregator=make_aggregator,
        seed=seed,
        batch_size=16,
        wear=wear,
    )
    made = set_up("splitfed_v1", network, data, plan)
    infiltrate(made, poisoning.make("label_flip"), poisoned, n_classes=2, seed=seed)
    return made


def test_label_flippers_of_a_split_federation_are_found_on_rounds_nobody_calibrated_on() -> None:
    torch.set_num_threads(1)
    found = detect_clients(
        federation,
        ["c1", "c4"],
        n_rounds=6,
        detectors=("quantum_ocsvm", "mahalanobis"),
        calibration_seeds=(11, 12, 13),
        seeds=(0,),
        false_alarms=0.05,
    )
    assert [each.detector for each in found] == ["quantum_ocsvm", "mahalanobis"]
    for each in found:
        assert each.features == 7  # the smashed data were seen
        assert each.rates.n_rounds == 6
        assert (each.rates.detection.total, each.rates.false_positives.total) == (12, 24)
        assert each.rates.detection.value > each.rates.false_positives.value + 0.3
        assert each.rates.false_positives.low < 0.15
        assert len(each.rounds[0]) == 6


def test_calibrated_rounds_are_never_judged() -> None:
    with pytest.raises(ValueError, match="seed 101 is both calibrated on and judged"):
        detect_clients(federation, ["c1"], n_rounds=2, seeds=(101,))
    with pytest.raises(ValueError, match="nobody attacks"):
        detect_clients(federation, [], n_rounds=2)


def test_the_real_network_flows_are_told_apart(real_data) -> None:
    """Small: whole figures are the recipe's. The levels are floors far below what was measured."""
    from hcqsfl.data import dataset

    torch.set_num_threads(1)
    windows = slide_all(dataset("ton_iot").load(real_data / "ton_iot", source="network", target="type"), 1.0)
    (fold,) = chronological(windows)
    found = detect(windows, fold, n_train=500, n_test=1000, seeds=(0,), arms=QUICK[:2], n_resamples=50)
    assert all(row.auroc.low > 0.8 for row in found.rows)
    assert all(row.false_alarms.value < 0.05 for row in found.rows)
