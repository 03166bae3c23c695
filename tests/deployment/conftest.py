"""What the tests of whole federations start from."""

from pathlib import Path

import pytest

from deployment.federations import CONFIG, Home
from made_people import write_table


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A folder with a made-up table and its settings, where the test then stands."""
    write_table(tmp_path / "data" / "table")
    (tmp_path / "c.toml").write_text(CONFIG)
    monkeypatch.setenv("HCQSFL_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return Home(tmp_path)
