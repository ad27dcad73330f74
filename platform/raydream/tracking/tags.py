"""The names under which trackers show a run: tags, charts, and the settings that runs are compared by."""

from collections.abc import Mapping
from typing import Any

from raydream.config.synthesis import METHODS
from raydream.config.tree import leaves

TAGS = {
    "accuracy/test": "student/accuracy_real_test",
    "accuracy/validation": "student/accuracy_real_validation",
    "accuracy/synthetic": "student/accuracy_synthetic",
    "student/waited_s": "system/student_waited_s",
    "images_per_s": "system/images_per_s",
    "buffer/images": "system/buffer_images",
    "buffer/samples_per_insert": "system/samples_per_insert",
}
"""tags of the metrics that have another name in metrics.parquet; every other metric's tag is its name"""

COMPARED = (
    "seed",
    "teacher.network",
    "data.name",
    "training.epochs",
    "student.network",
    "student.learning_rate",
    "synthesis.method",
    "synthesis.iterations",
    "synthesis.coefficients.feature",
    "synthesis.coefficients.competition",
    "rounds.count",
    "buffer.samples_per_insert",
    "images",
    "epochs",
    "methods",
    "images_per_class",
    "pruning.criterion",
    "pruning.ratio",
    "quantization.weights",
    "quantization.activations",
    "additions.rounds",
    "table",
)
"""settings that usually differ between runs of one job, in the order in which they are shown; a job has some of them"""

GLANCE_OF_STUDENT = {
    "accuracy on real images": ["student/accuracy_real_.*"],
    "distillation loss": ["student/loss"],
}
GLANCE_OF_BATCHES = {
    "feature distance, against batches made": ["batches/feature_distance"],
    "share of images on target, against batches made": ["batches/target_share"],
}
SYSTEM = {
    "images made per second": ["system/images_per_s"],
    "images in the buffer": ["system/buffer_images"],
    "age of the snapshot, in steps": ["system/staleness_steps"],
    "seconds that the student waited": ["system/student_waited_s"],
}


def charts_of(settings: Mapping[str, Any]) -> dict[str, dict[str, list[str]]]:
    """Return the layout of Custom Scalars for a job's nested settings: tags by chart and category.

    Tags are regular expressions. A job that makes no images has no layout, as its scalars are few.
    """
    synthesis = settings.get("synthesis")
    if synthesis is None:
        return {}
    weights = synthesis["coefficients"]
    terms = [name for name in METHODS[synthesis["method"]].terms if weights[name] > 0]
    charts = {
        "At a glance": (GLANCE_OF_STUDENT if "student" in settings else {}) | GLANCE_OF_BATCHES,
        "Synthesis, one curve per round": {term: [f"synthesis/{term}/.*"] for term in terms},
    }
    return charts | ({"System": SYSTEM} if "rounds" in settings else {})


def tag_of(name: str) -> str:
    """Return the tag of a metric, by its name in metrics.parquet."""
    return TAGS.get(name, name)


def compared(settings: Mapping[str, Any]) -> dict[str, bool | int | float | str]:
    """Return those of a job's nested settings that its runs are compared by, by dotted name; see `COMPARED`."""
    known = leaves(settings)
    found = {name: known[name] for name in COMPARED if name in known}
    return {name: _shown(value) for name, value in found.items()}


def _shown(value: Any) -> bool | int | float | str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return value if isinstance(value, bool | int | float | str) else str(value)
