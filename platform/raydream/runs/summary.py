"""The final figures of a run: those common to all jobs, and how they are read.

Names say their units: `_s` and `seconds` are seconds, `_hours` hours, `_ratio` is pruned to teacher; accuracies,
agreements, shares and calibration errors are shares in [0, 1]; all that is named in the plural, such as `images`, is a
count. What was not measured, as there were no real data for it, is None and left out of the file.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from raydream.errors import DocumentError

SHARES = ("accuracy", "share", "agreement", "ratio", "calibration_error", "forgetting")
"""parts of the names of figures that are shares, and shown in percent"""

Made = TypeVar("Made", bound="Summary")


@dataclass(frozen=True)
class Figure:
    """A final figure of a run.

    Attributes:
        name: what it is.
        value: as in the summary; shares are in [0, 1].
    """

    name: str
    value: float

    def __str__(self) -> str:
        return f"{self.name.replace('_', ' ')} {shown_figure(self.name, self.value)}"


def shown_figure(name: str, value: float) -> str:
    """Format a figure for a table: shares in percent, counts whole, others with four digits."""
    if any(part in name for part in SHARES) and abs(value) <= 1:
        return f"{100 * value:.1f} %"
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.4g}"


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The figures that the summary of every job has.

    Attributes:
        wall_s: seconds of all the run's sessions, without the time between them.
        seconds_by_stage: of the driver, by the stage's name.
        cpu_hours, gpu_hours: that the run's processes reserved; None if a job starts none.
        teacher_fingerprint: of the teacher's weights.
        versions: of Python and the libraries that computed.
        machine: the driver's machine.
    """

    wall_s: float = 0.0
    seconds_by_stage: dict[str, float] = field(default_factory=dict)
    cpu_hours: float | None = None
    gpu_hours: float | None = None
    teacher_fingerprint: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    machine: str | None = None

    @classmethod
    def upgraded(cls, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the values of an earlier version's file by the names of this version."""
        return values

    @property
    def main(self) -> Figure | None:
        """Return the job's main figure; None if it was not measured."""
        return None

    def as_json(self) -> dict[str, Any]:
        """Return the content of summary.json."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def _named(self, *names: str) -> Figure | None:
        """Return the first of these figures that exists."""
        found = ((name, getattr(self, name)) for name in names)
        return next((Figure(name, float(value)) for name, value in found if value is not None), None)


def read(kind: type[Made], values: object) -> Made:
    """Read a summary from the content of summary.json, of this version or an earlier one.

    Raises:
        DocumentError: a figure is missing, or of another type.
    """
    if not isinstance(values, Mapping):
        raise DocumentError("it holds no figures")
    values, known = kind.upgraded(values), {each.name for each in fields(kind)}
    try:
        return TypeAdapter(kind).validate_python({name: value for name, value in values.items() if name in known})
    except ValidationError as error:
        first = error.errors()[0]
        raise DocumentError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
