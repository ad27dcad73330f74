"""raydream: turn a trained CNN into a data set, and that data set into other networks, with no real image.

The public names are imported when one of them is first used: `import raydream` loads neither torch nor Ray.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raydream.api import (
        ImageSet,
        InputError,
        Teacher,
        accuracy,
        distill,
        extend,
        load_teacher,
        quantize,
        synthesize,
        transfer,
    )
    from raydream.applications.pruning import prune
    from raydream.diagnosis.diagnose import diagnose

__version__ = "0.2.0"

__all__ = [
    "ImageSet",
    "InputError",
    "Teacher",
    "accuracy",
    "diagnose",
    "distill",
    "extend",
    "load_teacher",
    "prune",
    "quantize",
    "synthesize",
    "transfer",
]


_BESIDE_THEIR_ALGORITHMS = {"prune": "raydream.applications.pruning", "diagnose": "raydream.diagnosis.diagnose"}
"""the modules of the public names outside `raydream.api`: functions of applications"""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_BESIDE_THEIR_ALGORITHMS.get(name, "raydream.api")), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
