"""Every file of a kind is in its registry, and every entry keeps the promises of its kind."""

import inspect
import tomllib
from pathlib import Path

import pytest
import torch

import hcqsfl
from hcqsfl import config
from hcqsfl.data import DATASETS, dataset
from hcqsfl.data.partition import PARTITIONERS
from hcqsfl.data.synthetic import WRITERS
from hcqsfl.federated.aggregation import AGGREGATORS
from hcqsfl.models import fronts, trunks
from hcqsfl.models.fronts import FRONTS
from hcqsfl.models.plan import PROTOCOLS
from hcqsfl.models.trunks import TRUNKS
from hcqsfl.privacy import attacks
from hcqsfl.privacy.attack import GOALS
from hcqsfl.privacy.attacks import ATTACKS
from hcqsfl.privacy.defences import DEFENCES
from hcqsfl.privacy.threats import THREATS
from hcqsfl.quantum import circuits
from hcqsfl.quantum.backend import BACKENDS
from hcqsfl.quantum.circuits import CIRCUITS

SOURCE = Path(hcqsfl.__file__).parent
CROSS = SOURCE.parents[1] / "configs" / "cross.toml"
CONFIGS = sorted(set(CROSS.parent.glob("*.toml")) - {CROSS})


def files_of(folder: str) -> set[str]:
    return {path.stem for path in (SOURCE / folder).glob("*.py") if path.stem != "__init__"}


def test_every_file_is_registered() -> None:
    assert set(CIRCUITS) == files_of("quantum/circuits")
    assert set(FRONTS) == files_of("models/fronts")
    assert set(TRUNKS) == files_of("models/trunks") - {"frame"} | {"hybrid"}
    assert set(WRITERS) < set(DATASETS)


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_every_data_set_says_what_it_is_and_loads_by_the_same_signature(name: str) -> None:
    module = dataset(name)
    for field in ("TITLE", "HOMEPAGE", "LICENCE", "CITATION"):
        assert getattr(module, field).strip(), field
    for function in (module.load, module.files):
        first, *rest = inspect.signature(function).parameters.values()
        assert first.name == "root"
        assert all(p.kind in (p.KEYWORD_ONLY, p.VAR_KEYWORD) for p in rest), function


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_every_data_set_says_what_it_looked_for_where_there_is_nothing(name: str, tmp_path) -> None:
    required = {"signal_columns": ["a"], "label_column": "b", "sfreq": 1.0} if name == "csv_table" else {}
    with pytest.raises(FileNotFoundError, match=str(tmp_path.name)):
        dataset(name).load(tmp_path, **required)


@pytest.mark.parametrize("name", sorted(FRONTS))
def test_every_front_maps_windows_to_smashed_data_one_by_one(name: str) -> None:
    """No batch statistics: a window's smashed data do not depend on what else is in the batch."""
    front = fronts.make(name, 3, 32, 5)
    x = torch.randn(6, 3, 32)
    assert front(x).shape == (6, 5)
    torch.testing.assert_close(front(x)[2:3], front(x[2:3]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", sorted(CIRCUITS))
def test_the_classical_trunk_has_as_many_parameters_as_the_hybrid_for_every_circuit(name: str) -> None:
    n = 2 if name == "hqsl" else 4
    circuit = circuits.make(name, n, 2)
    hybrid, classical = (trunks.make(kind, 6, 8, circuit, backend="pennylane") for kind in ("hybrid", "classical"))
    assert sum(p.numel() for p in hybrid.parameters()) == sum(p.numel() for p in classical.parameters())
    x = torch.randn(3, 6)
    assert hybrid(x).shape == classical(x).shape == (3, 8)


def test_registries_are_not_empty() -> None:
    for table in (PARTITIONERS, AGGREGATORS, PROTOCOLS, BACKENDS):
        assert table


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_is_valid_controlled_repeated_and_buildable(path: Path) -> None:
    from hcqsfl import build

    loaded = config.load(path)
    assert {arm.trunk for arm in build.arms(loaded)} == {"hybrid", "classical", "frozen", "fourier", "none"}
    assert len(loaded.evaluation.seeds) >= 2
    assert loaded.data.name in DATASETS
    build.circuit(loaded)
    assert config.parse(tomllib.loads(loaded.to_toml()), "round trip", config.Config) == loaded


def test_the_config_of_several_data_sets_is_valid_and_controlled() -> None:
    from hcqsfl import build

    loaded = config.load_cross(CROSS)
    assert len(loaded.members) == 4
    assert {arm.trunk for arm in build.cross_arms(loaded)} == {"hybrid", "classical", "frozen", "fourier"}
    assert len({member.model.n_smashed for member in loaded.members.values()}) == 1


def test_every_config_is_told_in_the_readme() -> None:
    readme = (SOURCE.parents[1] / "README.md").read_text(encoding="utf-8")
    assert all(f"`{path.stem}`" in readme for path in [*CONFIGS, CROSS])


def test_every_attack_and_defence_is_registered_and_says_what_it_is() -> None:
    assert set(ATTACKS) == files_of("privacy/attacks")
    assert {path.partition(":")[0].rpartition(".")[2] for path in DEFENCES.values()} == files_of("privacy/defences")
    for name in ATTACKS:
        attack = attacks.make(name)
        assert attack.goal in GOALS, name
        assert attack.source.strip(), name
        assert attack.threats, name
        assert set(attack.threats) <= set(THREATS), name


def test_attacks_know_neither_data_sets_nor_the_measures_that_judge_them() -> None:
    for path in (SOURCE / "privacy" / "attacks").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        for forbidden in ("hcqsfl.data", "hcqsfl.privacy.metrics", "hcqsfl.recipes", "hcqsfl.build"):
            assert forbidden not in text, (path, forbidden)
