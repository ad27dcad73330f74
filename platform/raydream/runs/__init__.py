"""Runs on disk: their folders, figures and journals, how they are found, listed, named by others and compared."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raydream.runs.frames import metrics_frame, runs_frame

__all__ = ["metrics_frame", "runs_frame"]


def __getattr__(name: str) -> Any:
    # The command line imports this package for its run folders, and is to answer without pandas and torch.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from raydream.runs import frames

    return getattr(frames, name)
