"""Calls of users' code: imported modules, factories of networks, and networks themselves."""

import contextlib
import copy
import inspect
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

STATE: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "torch's default dtype": (torch.get_default_dtype, torch.set_default_dtype),
    # Without a device of its own torch needs no hook in each of its functions.
    "torch's default device": (
        torch.get_default_device,
        lambda device: torch.set_default_device(None if device == torch.device("cpu") else device),
    ),
    "torch's gradient mode": (torch.is_grad_enabled, torch.set_grad_enabled),
    "torch's autocast mode": (
        lambda: torch.is_autocast_enabled("cpu"),
        lambda enabled: torch.set_autocast_enabled("cpu", enabled),
    ),
    "torch's autocast mode on GPUs": (
        lambda: torch.is_autocast_enabled("cuda"),
        lambda enabled: torch.set_autocast_enabled("cuda", enabled),
    ),
    "torch's number of threads": (torch.get_num_threads, torch.set_num_threads),
    "the working directory": (os.getcwd, os.chdir),
}
"""process-wide state that every computation depends on: how it is read and set"""


@contextlib.contextmanager
def contained() -> Iterator[None]:
    """Run a user's code, which may raise any error but neither end the process nor change its state.

    `STATE` is restored when the block ends, also by an error.

    Raises:
        RuntimeError: the code called `sys.exit`, or left the state changed.
    """
    before = {name: read() for name, (read, _) in STATE.items()}
    try:
        yield
    except SystemExit as error:
        raise RuntimeError(f"it ends the process (SystemExit: {error})") from error
    finally:
        changed = [name for name, (read, _) in STATE.items() if read() != before[name]]
        for name in changed:
            STATE[name][1](before[name])
    if changed:
        raise RuntimeError(f"it changes {' and '.join(changed)} for the whole process")


def as_declared(factory: Callable[..., Any], keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Copy a factory's keyword arguments, with tuples for lists where its signature says tuple.

    YAML and JSON have no tuples. A signature says tuple by the default value of a parameter, or by its annotation.
    """
    parameters: Mapping[str, inspect.Parameter] = {}
    with contextlib.suppress(TypeError, ValueError):  # it is not callable, or written in C
        parameters = inspect.signature(factory).parameters
    return {
        name: _with_tuples(value) if name in parameters and _says_tuple(parameters[name]) else copy.deepcopy(value)
        for name, value in keywords.items()
    }


def _says_tuple(parameter: inspect.Parameter) -> bool:
    annotation = str(parameter.annotation).lower()  # it may be text already
    return isinstance(parameter.default, tuple) or (
        "tuple" in annotation and not any(word in annotation for word in ("list", "sequence", "iterable"))
    )


def _with_tuples(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_with_tuples(inner) for inner in value)
    return {name: _with_tuples(inner) for name, inner in value.items()} if isinstance(value, dict) else value
