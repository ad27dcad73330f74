"""The table of commands: every row works, has its script, and loads no more than it needs."""

import ast
import os
import re
import subprocess
import sys
from dataclasses import is_dataclass
from pathlib import Path

import pytest

import raydream
from raydream.cli import completion
from raydream.cli.entries import entries_of
from raydream.cli.settings import defaults_of
from raydream.commands import COMMANDS, NAMES, imported, main, overview
from raydream.config import ReproduceConfig
from raydream.runs.catalogue import SIGNS
from tests.calls import ROOT, call, run
from tests.cli.test_mistakes import cpu_seconds, said

SETTINGS = [entry for entry in COMMANDS if entry.config]
SCRIPTS = {name for name, entry in NAMES.items() if not entry.given and entry.name not in ("configs", "completion")}


def test_names_are_given_once_and_in_the_order_of_use():
    assert len(NAMES) == sum(1 + len(entry.aliases) for entry in COMMANDS)
    ordered = "demo synthesize distill transfer prune extend evaluate train search ablate reproduce report runs"
    assert [entry.name for entry in COMMANDS if entry.name in ordered.split()] == ordered.split()
    assert NAMES["continual"] is NAMES["extend"] and NAMES["train_teacher"] is NAMES["train"]


@pytest.mark.parametrize("entry", COMMANDS, ids=lambda entry: entry.name)
def test_a_row_names_what_exists(entry):
    module, _, function = entry.target.partition(":")
    path = Path(raydream.__file__).parent.parent / f"{module.replace('.', '/')}.py"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert function in defined
    assert not entry.config or is_dataclass(imported(entry.config))
    assert not entry.defaults or callable(imported(entry.defaults))


def test_every_script_is_three_lines_for_a_command():
    scripts = {path.stem for folder in ("jobs", "tuning") for path in (ROOT / folder).glob("*.py")}
    assert {signs.job for signs in SIGNS} <= scripts <= SCRIPTS, "those of version 0.1 stay; later commands need none"
    for name in scripts:
        (script,) = (path for folder in ("jobs", "tuning") for path in (ROOT / folder).glob(f"{name}.py"))
        tree = ast.parse(script.read_text(encoding="utf-8"))
        assert len(tree.body) == 4 and f'main(command="{name}")' in script.read_text(encoding="utf-8")


def test_help_and_version_need_nothing_but_python():
    program = "import sys; from raydream.commands import main; main([sys.argv[1]]); print(*sorted(sys.modules))"
    for word, shown in (("--help", overview()), ("--version", f"raydream {raydream.__version__}")):
        taken, out = cpu_seconds("-c", program, word)
        assert out.startswith(shown)
        assert not {"torch", "ray", "pydantic", "yaml", "numpy"} & {*out.splitlines()[-1].split()}
        assert taken < 0.5


def test_python_m_raydream_is_the_same():
    done = subprocess.run([sys.executable, "-m", "raydream", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"raydream {raydream.__version__}\n"


def test_without_a_command_help_is_printed_with_status_2():
    assert said([]) == (2, "", f"{overview()}\n") and said(["--help"]) == (0, f"{overview()}\n", "")


@pytest.mark.parametrize("entry", [entry for entry in SETTINGS if not entry.given], ids=lambda entry: entry.name)
def test_without_words_a_command_prints_its_short_help(entry, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, error = said([entry.name])
    assert (status, out) == (2, "") and said([entry.name, "--help"]) == (0, error, "")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["report", "runs", "configs", "completion"])
def test_without_words_a_tool_prints_its_short_help(name):
    status, out, error = said([name])
    assert (status, out) == (2, "") and error.startswith(f"usage: raydream {name} ") and "--help" in error
    with pytest.raises(SystemExit) as ended:
        said([name, "--help"])
    assert ended.value.code == 0 and len(error.splitlines()) > 5


@pytest.mark.parametrize("entry", SETTINGS, ids=lambda entry: entry.name)
def test_help_is_a_page_with_examples_that_work(entry, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, page, _ = said([entry.name, "--help"])
    lines = page.splitlines()
    assert status == 0 and 18 <= len(lines) <= 40 and all(len(line) <= 120 for line in lines)
    assert "FieldInfo" not in page and "Annotated" not in page and entry.examples
    assert all(f"  raydream {example}" in lines for example in entry.examples)


def test_a_page_says_how_many_settings_it_leaves_out():
    page = said(["reproduce", "--help"])[1]
    (count,) = re.findall(r"  \.\.\. and (\d+) more: raydream reproduce --help all", page)
    shown = {line.split()[0] for line in page.partition("settings:")[2].splitlines() if line.startswith("  --")}
    assert len(shown) + int(count) == len(entries_of(ReproduceConfig, defaults_of(ReproduceConfig)))
    assert " more: " not in said(["distill", "--help"])[1]


@pytest.mark.parametrize("entry", SETTINGS, ids=lambda entry: entry.name)
def test_help_all_has_each_setting_with_its_columns(entry):
    kind = imported(entry.config)
    status, page, _ = said([entry.name, "--help", "all"])
    assert status == 0 and "FieldInfo" not in page and "Annotated" not in page
    shown = {line.split()[0] for line in page.splitlines() if line.startswith("  --")}
    sections = {name for name in completion.all_names(kind) if f"--{name}." in " ".join(shown)}  # type: ignore[attr-defined]
    assert shown == {f"--{name}" for name in completion.all_names(kind) if name not in sections}  # type: ignore[attr-defined]


def test_a_section_has_type_range_unit_and_default():
    page = said(["distill", "--help", "generators"])[1].splitlines()
    (cpus,) = (line.split() for line in page if line.startswith("  --generators.cpus "))
    assert cpus == ["--generators.cpus", "number,", "CPUs", ">", "0", "default", "0.5"]
    assert any("--generators.patience_s" in line and "number, s " in line and "default 600.0" in line for line in page)
    page = said(["distill", "--help", "synthesis"])[1]
    assert "--synthesis.coefficients.tv" in page and "auto|fp32|bf16|fp16" in page and "> 0, <= 1" in page


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_knows_commands_and_options(shell, tmp_path):
    (tmp_path / "script").write_text(completion.script(shell).removeprefix(completion.ZSH), encoding="utf-8")
    asked = {"": ["dis", 1, "distill"], "distill": ["--synthesis.iter", 2, "--synthesis.iterations"]}
    for before, (typed, at, meant) in asked.items():
        words = f"raydream {before} {typed}".split()
        code = f"source ./script; COMP_WORDS=({' '.join(words)}); COMP_CWORD={at}; _raydream; echo ${{COMPREPLY[@]}}"
        done = subprocess.run(["bash", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
        assert done.stdout.split() == [meant], done.stderr


def test_fish_completes_the_same():
    lines = completion.script("fish").splitlines()
    assert "complete -c raydream -n '__fish_seen_subcommand_from distill' -l 'synthesis.iterations'" in lines
    assert all(name in lines[0] for name in NAMES)


def test_a_command_without_a_script_is_run_by_the_package():
    assert "configs" not in SCRIPTS
    here, apart = call("configs", "ls"), run("configs", "ls")
    assert here.returncode == apart.returncode == 0 and here.stdout == apart.stdout and "digits_quantize" in here.stdout


@pytest.mark.parametrize(("given", "found"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_sleep_where_they_wait_unless_the_user_says_otherwise(monkeypatch, given, found):
    monkeypatch.setenv("OMP_WAIT_POLICY", given or "")
    if given is None:
        monkeypatch.delenv("OMP_WAIT_POLICY")
    assert main(["--version"]) == 0
    assert os.environ["OMP_WAIT_POLICY"] == found
