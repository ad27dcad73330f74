"""What pip and a reader of the repository learn of the project, and that its parts say the same."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import raydream
from raydream import extras
from raydream.errors import MistakeError
from raydream.extras import EXTRAS, require
from raydream.networks.digits import digits_network
from raydream.pruning.streams import find_streams
from raydream.tracking.sinks import TRACKERS
from tests.calls import ROOT
from tests.cli.test_mistakes import said

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
METADATA = PROJECT["project"]
OPTIONAL = METADATA["optional-dependencies"]
FOR_DEVELOPMENT = ("docs", "dev")


def names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(text).name) for text in requirements}


def imported_packages() -> dict[str, set[str]]:
    """Distributions of the modules that the package imports, with the files that do."""
    distributions, found = packages_distributions(), {}
    for path in (ROOT / "platform").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            for module in {each.partition(".")[0] for each in modules} - {*sys.stdlib_module_names, "raydream"}:
                for name in distributions.get(module, [module]):  # W&B's client is not installed for development
                    found.setdefault(canonicalize_name(name), set()).add(path.name)
    return found


def test_the_package_is_the_one_source_of_the_version():
    assert "version" in METADATA["dynamic"] and "version" not in METADATA
    assert (ROOT / PROJECT["tool"]["hatch"]["version"]["path"]).samefile(raydream.__file__)
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+)?", raydream.__version__)
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"] == raydream.__version__


def test_dependencies_are_what_the_package_imports():
    imported, core = imported_packages(), names(METADATA["dependencies"])
    optional = names([text for extra, texts in OPTIONAL.items() if extra not in FOR_DEVELOPMENT for text in texts])
    by_pydantic = {"pydantic-core"}
    assert imported.keys() - core - optional - by_pydantic == set()
    # Ray Train writes events for TensorBoard, pandas makes no pages: each of the others is imported by name.
    assert core - imported.keys() == {"tensorboard"}


def test_extras_are_the_modules_that_the_code_asks_for():
    distributions = packages_distributions()
    for extra, modules in EXTRAS.items():
        assert names(OPTIONAL[extra]) == {
            canonicalize_name(distributions.get(module, [module])[0]) for module in modules
        }
    everything = Requirement(OPTIONAL["all"][0])
    assert everything.name == "raydream"
    assert OPTIONAL.keys() - {"all", *FOR_DEVELOPMENT} == {*EXTRAS, "s3"}
    assert everything.extras == {*EXTRAS, "s3"} - TRACKERS.keys(), "all but what brings many packages along"


def without(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = extras.find_spec  # type: ignore[attr-defined]
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == module else found(name))


@pytest.mark.parametrize(
    ("command", "module", "package", "extra"),
    [("prune", "torch_pruning", "torch-pruning", "prune"), ("search", "optuna", "optuna", "search")],
)
def test_a_command_without_its_extra_is_one_sentence(command, module, package, extra, monkeypatch):
    without(module, monkeypatch)
    sentence = f"raydream {command} needs {package}, which is not installed: pip install 'raydream[{extra}]'"
    assert said([command, "--config", "digits"]) == (2, "", f"error: {sentence}\n")
    assert said([command, "--help"])[0] == 0


def test_so_is_the_api(monkeypatch):
    without("torch_pruning", monkeypatch)
    with pytest.raises(MistakeError, match=r"^pruning needs torch-pruning, .* pip install 'raydream\[prune\]'$"):
        find_streams(digits_network(), (1, 8, 8))


def test_several_packages_are_named(monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(MistakeError, match="needs onnx and onnxscript, which are not installed"):
        require("onnx", "student.onnx")
    require("", "nothing")


def test_metadata_says_who_made_it_and_for_whom():
    assert METADATA["authors"] == [{"name": "the raydream project"}] and METADATA["license"] == "Apache-2.0"
    assert METADATA["keywords"] and METADATA["urls"] and METADATA["classifiers"]
    assert METADATA["scripts"] == {"raydream": "raydream.commands:main"}
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["title"] == "raydream" and "Dreaming to Distill" in citation["references"][0]["title"]


@pytest.mark.parametrize(
    "path", sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")), ids=lambda path: path.stem
)
def test_issue_templates_are_forms(path):
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    if path.stem != "config":
        assert {"name", "description", "body"} <= form.keys()
        kept = [field["id"] for field in form["body"]]
        assert len({*kept}) == len(kept) and all(field["attributes"]["label"] for field in form["body"])
