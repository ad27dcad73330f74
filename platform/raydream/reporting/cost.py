"""What a run has cost: processors reserved, by the time that they were."""

from typing import Any, Protocol

from raydream.runs.summary import Summary


class Reserves(Protocol):
    """Settings of processes, each of which reserves so much."""

    @property
    def cpus(self) -> float: ...

    @property
    def gpus(self) -> float: ...


def hours(*held: tuple[float, int, Reserves]) -> dict[str, Any]:
    """CPU- and GPU-hours for a summary.

    Args:
        held: seconds, how many processes were asked for, and what each reserves. It counts whether or not they had
            work, and where there was room for fewer, it is too much.
    """
    return {
        f"{name}_hours": sum(seconds * count * getattr(each, f"{name}s") for seconds, count, each in held) / 3600
        for name in ("cpu", "gpu")
    }


def cost_rows(summary: Summary) -> dict[str, str]:
    """What a run's table says of it; nothing where it was not noted."""
    if summary.cpu_hours is None or summary.gpu_hours is None:
        return {}
    hours = f"{summary.cpu_hours:.3g} CPU-hours, {summary.gpu_hours:.3g} GPU-hours"
    return {"reserved": f"{hours}: what the processes asked for, times how long"}
