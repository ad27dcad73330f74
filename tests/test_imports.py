"""Imports point one way, and only `raydream.runtime` needs Ray."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import raydream

ROOT = Path(raydream.__file__).parent

LAYERS = [
    {"errors", "config", "records", "seeds", "storage", "folders", "schedule", "targets", "shards", "learned"},
    {"networks", "losses", "data", "compute"},
    {"teachers", "synthesis", "students", "buffer"},
    {"applications", "evaluation", "pruning", "reporting", "command_line", "search", "reproduction"},
    {"runtime"},
    {"api"},
]
"""of the parts of the package, each of which may import its own layer and those before"""


def imported(code: str) -> set[str]:
    """The modules that a fresh process holds after running `code`."""
    told = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"],
        capture_output=True,
        text=True,
    )
    assert told.returncode == 0, told.stderr
    return set(json.loads(told.stdout.splitlines()[-1]))


IMPORT_ALL = """
import importlib, pkgutil, raydream

def modules(package, prefix):
    for found in pkgutil.iter_modules(package.__path__, prefix):
        if found.name != "raydream.runtime":
            module = importlib.import_module(found.name)
            if found.ispkg:
                modules(module, found.name + ".")

modules(raydream, "raydream.")
"""


def test_everything_but_runtime_imports_without_ray():
    loaded = imported(IMPORT_ALL)
    assert {"raydream.losses.objective", "raydream.applications.rounds", "raydream.command_line"} <= loaded
    assert not {name for name in loaded if name.split(".")[0] == "ray" or name.startswith("raydream.runtime")}


def test_the_buffer_and_the_schedule_import_without_torch():
    names = [
        f"raydream.buffer.{path.stem}" for path in sorted((ROOT / "buffer").glob("*.py")) if path.stem != "__init__"
    ]
    loaded = imported(f"import raydream.schedule, raydream.shards, {', '.join(names)}")
    assert {"raydream.schedule", "raydream.buffer.limiter", "raydream.shards"} <= loaded
    assert not {name for name in loaded if name.split(".")[0] in ("torch", "ray")}


def test_checks_of_all_jobs_import_without_what_only_pruning_needs():
    loaded = imported("import raydream.pruning.checks")
    assert not {name for name in loaded if name.split(".")[0] in ("torch_pruning", "torchvision", "onnx", "ray")}


def test_no_process_of_a_job_pays_for_torchvision():
    # It takes two seconds, and each process of a run imports the job's module.
    modules = sorted(path.stem for path in (ROOT / "runtime").glob("*.py") if path.stem != "__init__")
    assert {"distill", "transfer"} <= set(modules)
    loaded = imported("import " + ", ".join(f"raydream.runtime.{module}" for module in modules))
    assert not {name for name in loaded if name.split(".")[0] == "torchvision"}


def test_processes_beside_the_driver_draw_nothing():
    loaded = imported("import raydream.runtime.student, raydream.runtime.generator, raydream.runtime.evaluator")
    assert not {name for name in loaded if name.split(".")[0] == "matplotlib"}


def test_the_package_itself_loads_nothing_until_a_name_of_it_is_used():
    loaded = imported("import raydream")
    assert not {name for name in loaded if name.startswith("raydream.") or name.split(".")[0] in ("torch", "ray")}
    assert "raydream.api" in imported("import raydream\nraydream.accuracy")


def test_the_command_line_imports_without_torch():
    loaded = imported("import raydream.command_line")
    assert not {name for name in loaded if name.split(".")[0] in ("torch", "ray")}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}


def imports_of(name: str) -> set[str]:
    """The modules that one module names in any import, at its top or inside a function."""
    tree, found = ast.parse(SOURCES[name].read_text()), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in SOURCES else str(node.module))
    return found


def layer_of(module: str) -> int:
    part = module.split(".")[1]
    for layer, parts in enumerate(LAYERS):
        if part in parts:
            return layer
    raise AssertionError(f"{module} is in no layer: add {part!r} to LAYERS, where docs/architecture.md puts it")


OWN = sorted(name for name in SOURCES if name != "raydream")


@pytest.mark.parametrize("name", OWN)
def test_imports_point_one_way(name):
    for other in imports_of(name):
        if other.startswith("raydream."):
            assert layer_of(other) <= layer_of(name), f"{name} imports {other}"


def test_no_module_imports_itself_over_others():
    graph = {name: {other for other in imports_of(name) if other in SOURCES and other != "raydream"} for name in OWN}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join([*path, name])
        if name not in done:
            for other in graph[name]:
                visit(other, (*path, name))
            done.add(name)

    for name in OWN:
        visit(name, ())
    assert len(done) == len(OWN)


@pytest.mark.parametrize("name", [name for name in OWN if not name.startswith("raydream.runtime")])
def test_only_runtime_names_ray(name):
    assert not {other for other in imports_of(name) if other.split(".")[0] == "ray"}


def test_platform_is_a_source_root_and_no_package():
    assert not (ROOT.parent / "__init__.py").exists()
