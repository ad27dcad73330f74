"""The types that fields of several components have, with the ranges that they allow."""

from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field

from raydream.errors import InputError

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
NonNegativeInt = Annotated[int, Field(ge=0)]

SHARE_OF_NODE = 0.001
"""of a node's custom resource that a process asks for: enough for it to be placed there, and for a thousand others"""

Device = Literal["auto", "cpu", "cuda", "mps"]
Betas = tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]]

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")]


def _on_this_machine(value: str) -> str:
    if "://" in value:
        remedy = "images in a store are made anew"
        raise InputError("reuse", value, "a folder of this machine, or empty for none", remedy)
    return value


Reuse = Annotated[str, AfterValidator(_on_this_machine)]

STRICT = ConfigDict(extra="forbid", validate_default=True)
"""of every component: a name that is none of its fields is refused"""


def reserved(cpus: float, gpus: float, node_resource: str | None) -> dict[str, float]:
    """What Ray reserves for a process, by Ray's names."""
    wanted = {"CPU": cpus, "GPU": gpus, node_resource or "": SHARE_OF_NODE}
    return {name: amount for name, amount in wanted.items() if name and amount}
