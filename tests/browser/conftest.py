"""A browser, and a page of each kind of report."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.pages import REPORTS


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or "chromium"
    with playwright.sync_playwright() as started:
        # As root, which CI is, Chromium has no sandbox; the pages are the project's own.
        opened = started.chromium.launch(executable_path=shutil.which(path) or path, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("reports")
    return {name: write(folder / name) for name, write in REPORTS.items()}
