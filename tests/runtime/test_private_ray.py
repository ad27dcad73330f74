"""What of Ray is private is used in one module, and is there in the version of Ray that is installed."""

import ast
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray._private import ray_constants, services, utils

from raydream.runtime.private_ray import started_as_here

ROOT = Path(__file__).parents[2]
ONLY = ROOT / "platform/raydream/runtime/private_ray.py"
FILES = sorted(
    path for folder in ("platform", "jobs", "tuning", "benchmarks") for path in (ROOT / folder).rglob("*.py")
)


def private_names(source: str) -> Iterator[str]:
    """What a module imports of Ray, or names by `ray.`, with a part that begins with an underscore."""
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Attribute):
            names = [ast.unparse(node)]
        yield from (name for name in names if name.startswith("ray.") and "._" in name and "__" not in name)


@pytest.mark.parametrize("path", [path for path in FILES if path != ONLY], ids=lambda path: str(path.relative_to(ROOT)))
def test_no_other_module_uses_what_is_private(path: Path) -> None:
    assert not list(private_names(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import ray._private.utils", True),
        ("from ray import _raylet", True),
        ("from ray._private import services", True),
        ("from ray.train.torch.config import _TorchBackend", True),
        ("ray._private.utils.f()", True),
        ("import ray.train", False),
        ("from ray.util.queue import Queue", False),
        ("ray.__version__", False),
        ("self._ray.get()", False),
    ],
)
def test_private_names_are_found(source: str, found: bool) -> None:
    assert bool(list(private_names(source))) == found


def test_the_one_module_uses_some() -> None:
    assert list(private_names(ONLY.read_text(encoding="utf-8")))


@pytest.mark.parametrize("private", [False, True])
@pytest.mark.parametrize("handled", [False, True])
def test_what_is_changed_of_ray_is_as_before_afterwards(private: bool, handled: bool) -> None:
    places = [
        (ray_constants, "ENABLE_RAY_CLUSTER", private),
        (services, "ConsolePopen", private),
        (utils, "set_sigterm_handler", handled),
        (ray_constants, "RAY_DISABLE_FAILURE_SIGNAL_HANDLER", handled),
    ]
    before = [getattr(module, name) for module, name, _ in places]
    own = signal.signal(signal.SIGTERM, (lambda *_: None) if handled else signal.SIG_DFL)
    try:
        with pytest.raises(ValueError, match="ended"), started_as_here(private):
            for (module, name, changed), value in zip(places, before, strict=True):
                assert (getattr(module, name) is not value) == changed, name
            raise ValueError("ended")
    finally:
        signal.signal(signal.SIGTERM, own)
    assert [getattr(module, name) for module, name, _ in places] == before
