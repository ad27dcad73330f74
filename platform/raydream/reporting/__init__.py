"""What a run tells people: its folder, metrics, TensorBoard events, progress, figures and report."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raydream.reporting.frames import metrics_frame, runs_frame

__all__ = ["metrics_frame", "runs_frame"]


def __getattr__(name: str) -> Any:
    # The command line imports this package for its run folders, and is to answer without pandas and torch.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from raydream.reporting import frames

    return getattr(frames, name)
