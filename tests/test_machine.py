"""The version that a summary names."""

import subprocess
from pathlib import Path

import pytest

import raydream
from raydream.machine import code_version


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A git checkout with one commit, in which `code/` is tracked and `installed/` is not."""
    for name in ("code", "installed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for words in (["init", "-q"], ["add", "code"], ["commit", "-qm", "one"]):
        subprocess.run([*git, *words], check=True)
    return tmp_path


def test_code_of_a_checkout_has_its_commit_and_whether_it_was_changed(checkout: Path):
    said = subprocess.run(["git", "-C", str(checkout), "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    commit = said.stdout[:10]
    assert code_version(checkout / "code") == f"{raydream.__version__} (commit {commit})"
    (checkout / "code" / "__init__.py").write_text("changed")
    assert code_version(checkout / "code") == f"{raydream.__version__} (commit {commit}, changed)"


def test_installed_code_has_none_even_within_another_projects_checkout(checkout: Path, tmp_path_factory, monkeypatch):
    assert code_version(checkout / "installed") == raydream.__version__
    assert code_version(tmp_path_factory.mktemp("elsewhere")) == raydream.__version__
    monkeypatch.setenv("PATH", "")
    assert code_version(checkout / "code") == raydream.__version__
