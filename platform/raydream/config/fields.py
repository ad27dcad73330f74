"""The types of fields that several components share, with their allowed ranges."""

import math
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from raydream.errors import InputError

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
NonNegativeInt = Annotated[int, Field(ge=0)]

SHARE_OF_NODE = 0.001
"""share of a node's custom resource that a process reserves; room for a thousand processes per node"""

Device = Literal["auto", "cpu", "cuda", "mps"]
Betas = tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]]

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")]


def _on_this_machine(value: str) -> str:
    if "://" in value:
        remedy = "images in a store are made again"
        raise InputError("reuse", value, "a folder of this machine, or empty for none", remedy)
    return value


Reuse = Annotated[str, AfterValidator(_on_this_machine)]

DEEPEST = 20
"""nesting levels that an argument may have; one that contains itself has no end"""


def _plain(value: Any, name: str, depth: int = 0) -> Any:
    """Convert a value to one that YAML and JSON preserve: tuples become lists."""
    if value is None or isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if depth == DEEPEST:
        raise _refused(f"it is nested more than {DEEPEST} levels deep")
    if isinstance(value, list | tuple):
        return [_plain(inner, f"{name}.{index}", depth + 1) for index, inner in enumerate(value)]
    if isinstance(value, dict):
        if wrong := [key for key in value if not isinstance(key, str)]:
            raise _refused(f"{name or 'it'} has the name {wrong[0]!r}, which is no text")
        return {key: _plain(inner, f"{name}.{key}".lstrip("."), depth + 1) for key, inner in value.items()}
    kind = value if isinstance(value, float) else f"of type {type(value).__name__}"
    raise _refused(f"{name} is {kind}")


def _refused(reason: str) -> PydanticCustomError:
    allowed = "text, finite numbers, true, false, null, and lists and dictionaries of these by name"
    return PydanticCustomError("arguments", "{allowed} ({reason})", {"allowed": allowed, "reason": reason})


def _arguments(given: Any) -> Any:
    # Sorted by name, as their order makes no difference to a function; in a dictionary among them it may.
    return dict(sorted(_plain(given, "").items())) if isinstance(given, dict) else given


if TYPE_CHECKING:
    Arguments = dict[str, Any]
else:  # without the types of its content: a value is kept as it is written
    Arguments = Annotated[dict, BeforeValidator(_arguments)]

STRICT = ConfigDict(extra="forbid", validate_default=True)
"""pydantic settings of every component: unknown field names are rejected"""


def reserved(cpus: float, gpus: float, node_resource: str | None) -> dict[str, float]:
    """Return the resources that Ray reserves for a process, by Ray's names."""
    wanted = {"CPU": cpus, "GPU": gpus, node_resource or "": SHARE_OF_NODE}
    return {name: amount for name, amount in wanted.items() if name and amount}
