"""Fixtures that every test may use."""

import os
from pathlib import Path

import pytest

REAL_DATA = Path(os.environ.get("HCQSFL_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real recordings: ``HCQSFL_DATA``, or ``shared/data`` beside the repository."""
    if not REAL_DATA.is_dir():
        pytest.skip(f"there are no real recordings at {REAL_DATA}; set HCQSFL_DATA to the folder that holds them")
    return REAL_DATA
