"""Imports point one way, and only the processes of a run and the jobs need Ray."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import raydream
from raydream.runtime import SETTINGS

ROOT = Path(raydream.__file__).parent

ROWS = [
    "errors interruption memory machine terminal engine_version seeds commands",
    "config store extras shipped",
    "tracking",
    "augmentation compute data networks runs search targets",
    "cli losses schedule teachers",
    "students synthesis buffer evaluation",
    "api_arguments device_check pruning quantization supervised",
    "applications diagnosis",
    "reporting",
    "reproduction runtime",
    "jobs.checks",
    "jobs",
    "api",
    "__main__",
]
"""the parts of the package: each imports itself and parts of rows before its own, none beside it"""
WITH_RAY = ("runtime", "jobs")
"""parts that import Ray"""


def imported(*stages: str) -> list[set[str]]:
    """The modules that a fresh process holds after each of these pieces of code, one after another."""
    show = "import json, sys\nprint(json.dumps(sorted(sys.modules)))"
    code = "\n".join(f"{stage}\n{show}" for stage in stages)
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    return [set(json.loads(line)) for line in told.stdout.splitlines()]


def packages(loaded: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in loaded}


def all_of(folder: str) -> str:
    """Code that imports each module of a folder."""
    stems = sorted(path.stem for path in (ROOT / folder).glob("*.py") if path.stem != "__init__")
    return "import " + ", ".join(f"raydream.{folder}.{stem}" for stem in stems)


IMPORT_ALL = """
import importlib, pkgutil, raydream

def modules(package, prefix):
    for found in pkgutil.iter_modules(package.__path__, prefix):
        # W&B's client is not installed for development.
        if found.name not in ("raydream.runtime", "raydream.jobs", "raydream.tracking.wandb_sink"):
            module = importlib.import_module(found.name)
            if found.ispkg:
                modules(module, found.name + ".")

modules(raydream, "raydream.")
modules(importlib.import_module("raydream.jobs.checks"), "raydream.jobs.checks.")
"""


@pytest.mark.long
def test_everything_but_processes_and_jobs_imports_without_ray():
    (loaded,) = imported(IMPORT_ALL)
    assert {"raydream.losses.objective", "raydream.applications.rounds", "raydream.cli"} <= loaded
    assert "ray" not in packages(loaded)


def test_the_package_the_command_line_and_the_buffer_import_without_torch():
    stages = ("import raydream", "import raydream.cli", "import raydream.schedule, raydream.store.shards")
    package, command_line, buffer = imported(*stages[:2], f"{stages[2]}\n{all_of('buffer')}")
    assert not {name for name in package if name.startswith("raydream.")}, "until a name of it is used"
    assert "raydream.cli" in command_line and {"raydream.schedule", "raydream.buffer.limiter"} <= buffer
    for loaded in (package, command_line, buffer):
        assert not {"torch", "ray"} & packages(loaded)


@pytest.mark.long
def test_processes_load_nothing_that_they_do_not_need():
    stages = {
        "inversion": "import sys\nsys.path.insert(0, 'benchmarks')\nimport inversion",
        "pruning": "import raydream.pruning.checks",
        "processes": "import raydream.runtime.student, raydream.runtime.generator, raydream.runtime.evaluator",
        "jobs": all_of("jobs"),
        "api": "import raydream\nraydream.accuracy",
    }
    loaded = dict(zip(stages, imported(*stages.values()), strict=True))
    assert "raydream.device_check.plain_loop" in loaded["inversion"] and "ray" not in packages(loaded["inversion"])
    assert not {"torch_pruning", "torchvision", "onnx", "ray"} & packages(loaded["pruning"])
    assert "matplotlib" not in packages(loaded["processes"])
    # torchvision takes two seconds, and each process of a run imports the job's module.
    assert "raydream.jobs.distill" in loaded["jobs"] and "torchvision" not in packages(loaded["jobs"])
    assert "raydream.api" in loaded["api"] - loaded["jobs"]


THIN = "import raydream.runtime.buffer, raydream.runtime.messages"
"""what the processes import that pass things on: the buffer, and the queue of reports"""
WORKERS = """
from raydream.runtime import evaluator, generator, student, training, transfer
from raydream.data.digits import load_digits
load_digits()
"""
"""what generators, a student's only worker, and the evaluator import, in which users' default data are loaded"""
HEAVY = {
    "pandas",
    "tensorboard",
    "mlflow",
    "wandb",
    "botocore",
    "matplotlib",
    "jinja2",
    "rich",
    "sklearn",
    "torchvision",
}


def test_each_process_of_a_run_imports_what_it_needs_alone():
    # A run has seven processes, each of which pays for what it imports: pandas 0.3 s, TensorBoard 0.3, Ray Train 0.9,
    # scikit-learn 1.1, torch 1.2 (CPU-seconds).
    thin, workers = imported(THIN, WORKERS)
    assert "raydream.store.records" in thin and not {"torch", *HEAVY} & packages(thin)
    assert "raydream.runtime.training" in workers and not HEAVY & packages(workers)
    assert not {"ray.train", "ray.data", "pyarrow.dataset", "torch._dynamo"} & workers


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


def part_of(module: str) -> str:
    names = module.split(".")[1:]
    return ".".join(names[:2]) if names[:2] == ["jobs", "checks"] else names[0]


def row_of(part: str) -> int:
    for row, parts in enumerate(ROWS):
        if part in parts.split():
            return row
    raise AssertionError(f"{part} is in no row: add it to ROWS, where docs/architecture.md puts it")


OWN = sorted(name for name in SOURCES if name != "raydream")


@pytest.mark.parametrize("name", OWN)
def test_imports_point_one_way(name):
    mine = part_of(name)
    for other in imports_of(name):
        if other.startswith("raydream.") and (part := part_of(other)) != mine:
            assert row_of(part) < row_of(mine), f"{name} imports {other}"


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


@pytest.mark.parametrize("name", [name for name in OWN if part_of(name) not in WITH_RAY])
def test_only_processes_and_jobs_name_ray(name):
    assert not {other for other in imports_of(name) if other.split(".")[0] == "ray"}


READING_WEIGHTS = {"raydream.teachers.loading", "raydream.teachers.verifiers", "raydream.store.downloads"}


@pytest.mark.parametrize("name", [name for name in OWN if part_of(name) in ("runtime", "applications", "reproduction")])
def test_processes_are_handed_weights_and_read_none_by_path_or_url(name):
    assert not imports_of(name) & READING_WEIGHTS


TRAINING_TEACHERS = {
    "raydream.runtime.teaching",
    "raydream.jobs.train",
    "raydream.jobs.teacher",
    "raydream.jobs.reproduce",
}
"""the modules outside of raydream.supervised that may import it, as a teacher is trained on real images there"""
REAL_IMAGES = {
    f"raydream.data{module}" for module in ("", ".real", ".splits", ".files", ".digits", ".torchvision_sets")
}


@pytest.mark.parametrize("name", [name for name in OWN if part_of(name) != "supervised"])
def test_only_modules_that_train_a_teacher_import_its_training_on_real_images(name):
    assert not any(other.startswith("raydream.supervised") for other in imports_of(name)) or name in TRAINING_TEACHERS


@pytest.mark.parametrize("name", [name for name in OWN if part_of(name) in ("students", "synthesis", "buffer")])
def test_what_makes_images_or_learns_from_made_ones_imports_no_real_images(name):
    assert not imports_of(name) & REAL_IMAGES


SHOW_WHEN_RAY_IS_IMPORTED = """
import importlib.abc, os, sys
class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "ray":
            print(sorted(each for each in os.environ if each.startswith("RAY_")))
            os._exit(0)
sys.meta_path.insert(0, Finder())
import raydream.jobs.{job}
"""


def test_rays_settings_are_made_before_ray_is_imported():
    # The driver's Ray reads them then. Its daemons begin later and have them anyway, so they would refuse the driver.
    bare = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    for job in ("distill", "search"):
        code = SHOW_WHEN_RAY_IS_IMPORTED.replace("{job}", job)
        told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=bare)
        assert told.stdout.strip() == str(sorted(SETTINGS)), told.stderr


def test_platform_is_a_source_root_and_no_package():
    assert not (ROOT.parent / "__init__.py").exists()
