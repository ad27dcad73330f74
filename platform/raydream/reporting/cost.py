"""The cost of a run: reserved processors times duration."""

from typing import Any, Protocol

from raydream.runs.summary import Summary


class Reserves(Protocol):
    """The interface of settings that state the resources a process reserves."""

    @property
    def cpus(self) -> float: ...

    @property
    def gpus(self) -> float: ...


def hours(*held: tuple[float, int, Reserves]) -> dict[str, Any]:
    """Return CPU- and GPU-hours for a summary.

    Args:
        held: seconds, number of requested processes, and resources that each reserves. Idle processes count, too, and
            so do requested ones that did not start.
    """
    return {
        f"{name}_hours": sum(seconds * count * getattr(each, f"{name}s") for seconds, count, each in held) / 3600
        for name in ("cpu", "gpu")
    }


def cost_rows(summary: Summary) -> dict[str, str]:
    """Return the cost's rows for a run's table; none where it was not recorded."""
    if summary.cpu_hours is None or summary.gpu_hours is None:
        return {}
    hours = f"{summary.cpu_hours:.3g} CPU-hours, {summary.gpu_hours:.3g} GPU-hours"
    return {"reserved": f"{hours} (reserved processors × time)"}
