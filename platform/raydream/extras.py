"""The packages that only some commands need, by the names under which pip installs them with raydream."""

from importlib.util import find_spec

from raydream.errors import MistakeError

EXTRAS = {
    "prune": ("torch_pruning",),
    "search": ("optuna",),
    "onnx": ("onnx", "onnxscript"),
    "quantize": ("onnx", "onnxscript", "onnxruntime", "torchao"),
    "metrics": ("torchmetrics",),
    "timm": ("timm",),
    "mlflow": ("mlflow",),
    "wandb": ("wandb",),
}
"""the modules of each of pyproject.toml's optional dependencies; `[all]` installs all but the trackers' clients"""


def missing(extra: str) -> list[str]:
    """Return the modules of an extra that are not installed."""
    return [module for module in EXTRAS.get(extra, ()) if find_spec(module) is None]


def require(extra: str, user: str) -> None:
    """Check that an extra is installed.

    Args:
        extra: of `EXTRAS`; empty: nothing is needed.
        user: what needs it, for the error, such as `raydream prune`.

    Raises:
        MistakeError: it is not; the message has the command that installs it.
    """
    if absent := missing(extra):
        packages = " and ".join(module.replace("_", "-") for module in absent)
        verb = "is" if len(absent) == 1 else "are"
        remedy = f"pip install 'raydream[{extra}]'"
        raise MistakeError(user, f"{user} needs {packages}, which {verb} not installed: {remedy}")
