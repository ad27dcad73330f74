"""A run's gauges for Prometheus, exported by Ray's metrics agents as `ray_<name>`, tagged with the run.

`docs/grafana.json` shows all of them; `tests/cluster/test_metrics.py` keeps the two consistent.
"""

from ray.util.metrics import Gauge

GAUGES = {
    "raydream_images": "images committed",
    "raydream_images_per_s": "images committed per second, by this process",
    "raydream_buffer_batches": "image batches that the buffer holds",
    "raydream_batches_in_flight": "image batches that generators are making",
    "raydream_generators": "generators that are idle or busy",
    "raydream_restarts": "batches that were lost with their generator, and student jobs that were restarted, by role",
    "raydream_student_step": "distillation steps behind the student's last report",
    "raydream_staleness_steps": "steps from the student that the last batch competed with to the newest",
    "raydream_waiting_s": "seconds of the longest wait of a process for another one; 0: none waits",
    "raydream_student_accuracy": "of the student's last snapshot, in [0, 1], by split",
}
"""names, without the prefix that Ray adds, and their meaning"""
TAGS = ("run", "role", "split")


class RunMetrics:
    """The gauges of one run.

    Args:
        run: its id.
    """

    def __init__(self, run: str) -> None:
        self._gauges = {name: Gauge(name, description, tag_keys=TAGS) for name, description in GAUGES.items()}
        for gauge in self._gauges.values():
            gauge.set_default_tags({"run": run, "role": "", "split": ""})
        self._values: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}

    def set(self, name: str, value: float, **tags: str) -> None:
        """Set a gauge, which `send` sends from then on.

        Args:
            name: without `raydream_`.
            tags: role or split, where these distinguish its values.
        """
        self._values[f"raydream_{name}", tuple(sorted(tags.items()))] = value

    def send(self) -> None:
        """Send all values to Ray; to be repeated, as its agents forget a value that was not sent for some 20 s."""
        for (name, tags), value in self._values.items():
            self._gauges[name].set(value, dict(tags))
