"""All uses of Ray's private modules: check these first with another version of Ray."""

import contextlib
import signal
import sys
from collections.abc import Iterator
from functools import partial
from types import ModuleType
from typing import Any

from ray._private import ray_constants, services, utils
from ray._private.state import available_resources_per_node

__all__ = ["available_resources_per_node", "started_as_here", "torch_backend"]


def torch_backend() -> Any:
    """Return the class by which Ray Train starts torch's process group; Ray Train takes a second to import."""
    from ray.train.torch.config import _TorchBackend

    return _TorchBackend


@contextlib.contextmanager
def started_as_here(private: bool) -> Iterator[None]:
    """Start or join Ray, within a `with` block, in ways for which Ray has no settings.

    Args:
        private: whether Ray is started, not joined.
    """
    changes: list[tuple[ModuleType, str, Any]] = []
    if private:
        # 127.0.0.1 is the node's address, as always on macOS and Windows. Ray replaces that address where `ray.init` is
        # given it, and RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER, which is read when Ray is imported, would also hold for every
        # `ray start` of this process.
        changes.append((ray_constants, "ENABLE_RAY_CLUSTER", False))
    if private and sys.platform == "linux":
        # A signal to this process's group, as by a terminal or `timeout`, is for this process to answer: where the
        # raylet ends first, Ray ends this process, too, without a word. The kernel ends them with this process.
        changes.append((services, "ConsolePopen", partial(services.ConsolePopen, process_group=0)))
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        # Ray replaces a handler of SIGTERM twice: in Python by one that raises SystemExit, on which a call of Ray's
        # aborts the process, and in C++ by one that prints a trace; `ray.shutdown` then installs the system's.
        changes.append((utils, "set_sigterm_handler", lambda handler: None))
        changes.append((ray_constants, "RAY_DISABLE_FAILURE_SIGNAL_HANDLER", True))
    before = [(module, name, getattr(module, name)) for module, name, _ in changes]
    try:
        for module, name, value in changes:
            setattr(module, name, value)
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)
