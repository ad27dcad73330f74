"""The check's results as plain text: a line for each step, and the errors of those that failed."""

from collections.abc import Mapping
from typing import Any

from raydream.config.tree import leaves

SHOWN = 160
"""number of characters of figures in a line"""


def outcome(result: Mapping[str, Any]) -> str:
    """Describe a step's result in a line, with its first figures."""
    texts = {name: _text(value) for name, value in leaves(result["figures"]).items()}
    shown = ", ".join(f"{name} {text}" for name, text in texts.items() if text is not None)
    shown = shown if len(shown) <= SHOWN else f"{shown[: SHOWN - 2]} …"
    return f"{_state(result)}: {shown}" if result["ok"] and shown else _state(result)


def _state(result: Mapping[str, Any]) -> str:
    if result["ok"] is None:
        return f"skipped: {result['figures']['skipped']}"
    if result["ok"]:
        return f"passed in {result['seconds']:.1f} s"
    return f"FAILED after {result['seconds']:.1f} s: {str(result['error']).splitlines()[0]}"


def summary(results: Mapping[str, Mapping[str, Any]], out: object) -> str:
    """Format all results as a table, then the whole errors of failed steps.

    Args:
        out: the file that holds all figures.
    """
    width = max(map(len, results))
    lines = [f"{name.ljust(width)}  {_state(result)}" for name, result in results.items()]
    for name in failed(results):
        lines += ["", f"{name} failed:", *(f"    {line}" for line in str(results[name]["error"]).splitlines())]
    passed = sum(result["ok"] is True for result in results.values())
    skipped = sum(result["ok"] is None for result in results.values())
    seconds = sum(result["seconds"] for result in results.values())
    counts = f"{passed} passed, {len(failed(results))} failed, {skipped} skipped, in {seconds:.0f} s"
    return "\n".join([*lines, "", f"{counts}; all figures: {out}"])


def failed(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the names of the failed steps."""
    return [name for name, result in results.items() if result["ok"] is False]


def _text(value: object) -> str | None:
    """Format a number, boolean or text; None: anything else is not shown in a line."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else None
