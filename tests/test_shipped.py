"""Configurations, presets and spaces that come with raydream, by name."""

from pathlib import Path

import pytest
import yaml

from raydream import shipped
from raydream.cli import parse
from raydream.cli.settings import leaves, type_at
from raydream.commands import COMMANDS, imported
from raydream.config import DistillConfig, SearchConfig
from raydream.errors import InputError
from raydream.search.space import space_of
from raydream.shipped import SPACE, description_of, file_named, shipped_files
from tests.calls import ROOT
from tests.cli.test_mistakes import said

FILES = shipped_files()
KINDS = [imported(entry.config) for entry in COMMANDS if entry.config]


def test_all_files_of_the_repository_come_along():
    paths = [*(ROOT / "configs").rglob("*.yaml"), *(ROOT / "tuning" / "spaces").rglob("*.yaml")]
    assert sorted(FILES.values()) == sorted(paths)
    assert {"digits", "preset:cifar10_students", "space:coefficients"} <= FILES.keys()


@pytest.mark.parametrize("name", FILES)
def test_a_file_says_what_it_is(name):
    described = description_of(FILES[name])
    assert 20 < len(described) < 250 and "\n" not in described
    text = FILES[name].read_text(encoding="utf-8")
    assert "jobs/" not in text and "tuning/" not in text


@pytest.mark.parametrize("name", [name for name in FILES if not name.startswith(SPACE)])
def test_a_configuration_is_one_of_a_command(name):
    settings = yaml.safe_load(FILES[name].read_text(encoding="utf-8"))
    assert any(all(type_at(kind, path) is not None for path, _ in leaves(kind, settings)) for kind in KINDS)


def test_a_name_and_its_path_are_the_same(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    by_name = parse(DistillConfig, "distill", ["--config", "digits", "--config", "preset:cifar10_students"]).config
    paths = [str(ROOT / "configs/digits.yaml"), str(ROOT / "configs/presets/cifar10_students.yaml")]
    assert by_name == parse(DistillConfig, "distill", ["--config", paths[0], "--config", paths[1]]).config
    given = ["--config", "digits_poor_start", "--space"]
    spaces = [parse(SearchConfig, "search", [*given, each]).config for each in ("coefficients", "space:coefficients")]
    assert spaces[0] == spaces[1] and space_of(spaces[0]).dimensions


def test_a_file_of_ones_own_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("digits").write_text("seed: 3", encoding="utf-8")
    assert file_named("digits", "--config") == Path("digits")
    assert parse(DistillConfig, "distill", ["--config", "digits"]).config.seed == 3


def test_what_is_not_there_is_refused():
    with pytest.raises(InputError, match=r"did you mean preset:prune_paper\?"):
        file_named("preset:prune_papers", "--config")


def test_configs_lists_shows_and_copies(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, _ = said(["configs", "ls"])
    assert status == 0 and [line.split()[0] for line in out.splitlines()] == list(FILES)
    assert said(["configs", "show", "preset:prune_small"])[1] == FILES["preset:prune_small"].read_text(encoding="utf-8")
    assert said(["configs", "cp", "digits"])[:2] == (0, "digits.yaml\n")
    assert Path("digits.yaml").read_text(encoding="utf-8") == FILES["digits"].read_text(encoding="utf-8")
    status, _, error = said(["configs", "cp", "digits", "."])
    assert status == 2 and error.startswith("error: TO = 'digits.yaml': must be a file that does not exist yet")
    assert said(["configs", "cp", "space:images", "mine.yaml"])[1] == "mine.yaml\n"
    for to, reason in (("none/mine.yaml", "No such file or directory"), ("mine.yaml/other.yaml", "Not a directory")):
        sentence = f"error: TO = '{to}': must be a folder, or a new file in one; writing there failed: {reason}.\n"
        assert said(["configs", "cp", "digits", to]) == (2, "", sentence)


def test_an_installed_package_has_them_in_itself(tmp_path, monkeypatch):
    (tmp_path / "configs" / "presets").mkdir(parents=True)
    (tmp_path / "configs" / "mine.yaml").touch()
    (tmp_path / "configs" / "presets" / "other.yaml").touch()
    monkeypatch.setattr(shipped, "CONFIGS", tmp_path / "configs")
    monkeypatch.setattr(shipped, "SPACES", tmp_path / "spaces")
    assert [*shipped_files()] == ["mine", "preset:other"]
