from pathlib import Path

import pytest

from hcqsfl import config

MINIMAL = """
name = "x"
[data]
name = "wesad"
root = "wesad"
[windows]
seconds = 10
[split]
scheme = "leave_one_subject_out"
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "c.toml"
    file.write_text(MINIMAL)
    return file


def test_single_settings_are_set_anew_by_type(path: Path) -> None:
    loaded = config.load(
        path,
        [
            "trunk.n_qubits=6",
            "federation.protocol=splitfed_v1",
            "evaluation.seeds=[5]",
            'data.options={device="wrist"}',
        ],
    )
    assert loaded.trunk.n_qubits == 6
    assert loaded.federation.protocol == "splitfed_v1"
    assert loaded.evaluation.seeds == (5,)
    assert loaded.data.options == {"device": "wrist"}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trunk.n_qubit=6", "no setting 'trunk.n_qubit'; did you mean 'n_qubits'"),
        ("trnk.n_qubits=6", "no setting 'trnk'; did you mean 'trunk'"),
        ("trunk.n_qubits=0", "trunk.n_qubits: .*greater than or equal to 1, not 0"),
        ("trunk.kind=quantum", "trunk.kind: .*'hybrid', 'classical', 'frozen' or 'fourier', not 'quantum'"),
        ("windows.samples=4", "either in seconds or in samples"),
        ("evaluation.controls=[]", "a hybrid trunk needs its classical control"),
        ("evaluation.seeds=[1, 1]", "a seed appears twice"),
        ("name.x=1", "name is a value, not a section"),
        ("nonsense", "takes section.key=value"),
    ],
)
def test_a_wrong_setting_is_named(path: Path, override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config.load(path, [override])


def test_a_hybrid_trunk_without_control_needs_the_named_flag(path: Path) -> None:
    loaded = config.load(path, ["evaluation.controls=[]", "evaluation.without_control=true"])
    assert loaded.evaluation.controls == ()


def test_a_missing_setting_is_named(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text('name = "x"\n[data]\nname = "wesad"\n')
    with pytest.raises(ValueError, match=r"'data.root' is missing(.|\n)*'windows' is missing"):
        config.load(tmp_path / "c.toml")


@pytest.mark.parametrize("content", [b"name = ", b"\xff\xfe"])
def test_a_file_that_is_no_toml_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "c.toml").write_bytes(content)
    with pytest.raises(ValueError, match="is not TOML"):
        config.load(tmp_path / "c.toml")


def test_a_config_that_is_not_there_is_named() -> None:
    with pytest.raises(FileNotFoundError, match="there is no config file"):
        config.load(Path("nowhere.toml"))


def test_the_data_home_is_what_the_environment_says(path: Path, monkeypatch) -> None:
    assert config.load(path).data.path == Path("data/wesad")
    monkeypatch.setenv("HCQSFL_DATA", "/elsewhere")
    assert config.load(path).data.path == Path("/elsewhere/wesad")
    assert config.load(path, ["data.root=/absolute"]).data.path == Path("/absolute")
