"""What a user gets: the wheel, installed with its dependencies, in an empty folder outside of the repository.

This is the one installation of all dependencies that the tests make; it needs an index, and 7 GB for a while.
"""

import json
import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import raydream
from raydream.commands import overview
from raydream.shipped import shipped_files
from raydream.teachers.checkpoints import save_network
from tests.calls import ROOT
from tests.tiny import tiny_network

pytestmark = pytest.mark.long

VALIDATE = """
import pathlib, yaml
import raydream
from raydream.cli import parse
from raydream.cli.settings import all_names, leaves, type_at
from raydream.commands import COMMANDS, imported
from raydream.shipped import PRESET, SPACE, shipped_files

package = pathlib.Path(raydream.__file__).parent
kinds = {entry.name: imported(entry.config) for entry in COMMANDS if entry.config}
defaults = {entry.name: imported(entry.defaults) if entry.defaults else lambda given: {} for entry in COMMANDS}
for name, path in shipped_files().items():
    assert path.is_relative_to(package), path
    if name.startswith(SPACE):
        command, given = "search", ["--config", "digits_poor_start", "--space", name]
    else:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
        fits = [
            each for each, kind in kinds.items()
            if all(type_at(kind, at) is not None for at, _ in leaves(kind, settings))
        ]
        if name.startswith(PRESET):
            command = fits[0]
            before = f"digits_{command}" if command in ("prune", "transfer") else "digits"
            given = ["--config", before, "--config", name]
        else:
            command = min(fits, key=lambda each: len([*all_names(kinds[each])]))
            given = ["--config", name]
    parse(kinds[command], command, [*given, "--run-dir", "x"], defaults[command])
    print(name, command)
"""
OWN = """
from torch import nn
from raydream.networks.digits import digits_network

def small(width: int = 8) -> nn.Module:
    return digits_network(width=width)
"""
API = """
import raydream
from own import small
given = {"input_shape": (1, 8, 8), "mean": [0.3], "std": [0.35], "classes": 10, "device": "cpu"}
teacher = raydream.load_teacher("own:small", checkpoint="own.safetensors", **given)
made = raydream.synthesize(teacher, 6, synthesis={"iterations": 3, "batch_size": 6})
print(len(made), tuple(made[0][0].shape))
"""


def run(*words: str | Path, folder: Path, timeout_s: float = 600) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, without what this process has set for Ray or Python."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "PYTHON"))}
    done = subprocess.run(
        [*map(str, words)],
        cwd=folder,
        env=kept,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        start_new_session=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The wheel and the source distribution."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "--directory", folder, folder=ROOT)
    ((wheel,), (source,)) = (folder.glob("*.whl"), folder.glob("*.tar.gz"))
    return wheel, source


@pytest.fixture(scope="module")
def programs(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the programs of a fresh environment in which the wheel is installed with its dependencies."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    programs = folder / "bin"
    install = [programs / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    run(*install, built[0], folder=folder, timeout_s=1800)
    return programs


def test_what_is_uploaded_passes_twine_and_has_these_files(built: tuple[Path, Path]) -> None:
    run(sys.executable, "-m", "twine", "check", "--strict", *built, folder=ROOT)
    wheel, source = built
    assert f"-{raydream.__version__}-" in wheel.name
    in_wheel = {*zipfile.ZipFile(wheel).namelist()}
    own = {path.relative_to(ROOT / "platform") for path in (ROOT / "platform" / "raydream").rglob("*")}
    own = {str(path) for path in own if path.suffix in (".py", ".yaml", ".j2", ".typed", ".json", ".css", ".js")}
    shipped = {
        str(Path("raydream/shipped", *path.relative_to(ROOT).parts).as_posix()).replace("tuning/", "")
        for path in shipped_files().values()
    }
    assert {name for name in in_wheel if ".dist-info/" not in name} == own | shipped
    with tarfile.open(source) as archive:
        tops = {Path(name).parts[1] for name in archive.getnames()}
    wanted = {"platform", "configs", "jobs", "tuning", "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"}
    assert tops == wanted | {"CITATION.cff", "constraints.txt", "PKG-INFO", ".gitignore"}


def test_the_command_and_all_configurations_are_there(programs: Path, tmp_path: Path) -> None:
    assert run(programs / "raydream", "--help", folder=tmp_path).stdout == f"{overview()}\n"
    said = run(programs / "python", "-m", "raydream", "--version", folder=tmp_path).stdout
    assert said == f"raydream {raydream.__version__}\n"
    listed = run(programs / "raydream", "configs", "ls", folder=tmp_path).stdout
    assert [line.split()[0] for line in listed.splitlines()] == list(shipped_files())
    validated = run(programs / "python", "-c", VALIDATE, folder=tmp_path).stdout
    commands = dict(line.split() for line in validated.splitlines())
    assert list(commands) == list(shipped_files())
    assert commands["preset:prune_paper"] == "prune" and commands["preset:transfer_90_epochs"] == "transfer"
    assert not list(tmp_path.iterdir())


def test_an_extra_that_is_missing_is_named(programs: Path, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"error: raydream prune needs torch-pruning, which is not installed: pip"):
        run(programs / "raydream", "prune", "--config", "digits_prune", folder=tmp_path)
    # pip looks for what the extra needs alone, and for no distribution of this name.
    extra = [programs / "python", "-m", "pip", "install", "--dry-run", "--no-index", "--quiet", "raydream[timm]"]
    with pytest.raises(AssertionError, match="No matching distribution found for timm"):
        run(*extra, folder=tmp_path)


def test_the_demo_distills_a_student_from_no_real_image(programs: Path, tmp_path: Path, own_ray: None) -> None:
    run(programs / "raydream", "demo", "--run-dir", "runs/first", folder=tmp_path, timeout_s=1800)
    assert {path.name for path in tmp_path.iterdir()} == {"runs"}
    summary = json.loads((tmp_path / "runs" / "first" / "summary.json").read_text(encoding="utf-8"))
    assert summary["teacher_accuracy"] >= 0.985 and summary["student_accuracy"] >= 0.97
    assert summary["rounds"] >= 4 and summary["generators"] >= 2 and summary["overlap_share"] > 0.2
    listed = run(programs / "raydream", "runs", "list", folder=tmp_path).stdout
    assert "runs/first" in listed and "done" in listed and "1 runs" in listed


def test_a_network_of_the_working_directory_is_inverted(programs: Path, tmp_path: Path, own_ray: None) -> None:
    (tmp_path / "own.py").write_text(OWN, encoding="utf-8")
    save_network(tiny_network(), tmp_path / "own.safetensors")
    few = ["--images", "20", "--synthesis.batch_size", "10", "--synthesis.iterations", "3", "--reuse", ""]
    teacher = ["--teacher.network", "own:small", "--teacher.checkpoint", "own.safetensors", "--data.name", "none"]
    run(programs / "raydream", "synthesize", *teacher, *few, "--run-dir", "runs/own", folder=tmp_path)
    assert len([*(tmp_path / "runs" / "own" / "images").glob("r*.parquet")]) == 2
    assert run(programs / "python", "-c", API, folder=tmp_path).stdout == "6 (1, 8, 8)\n"
