import shutil
from pathlib import Path

import pytest

from tests.tiny import finished_images


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished_images(tmp_path_factory.mktemp("made") / "images")


@pytest.fixture
def run_dir(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "images"))
