"""raydream: turn a trained CNN into a data set, and that data set into other networks, with no real image.

What is below is `raydream.api`, which is imported when one of its names is first used: `import raydream` loads neither
torch nor Ray.
"""

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
        prune,
        quantize,
        synthesize,
        transfer,
    )

__version__ = "0.2.0.dev0"

__all__ = [
    "ImageSet",
    "InputError",
    "Teacher",
    "accuracy",
    "distill",
    "extend",
    "load_teacher",
    "prune",
    "quantize",
    "synthesize",
    "transfer",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from raydream import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
