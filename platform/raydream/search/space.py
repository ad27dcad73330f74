"""The space of a search: settings and ranges, each checked by the setting's own rules."""

import difflib
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from raydream.config import DistillConfig, SearchConfig
from raydream.config.conversion import as_dict, validate
from raydream.config.synthesis import AUTO
from raydream.config.tree import leaves
from raydream.errors import InputError

KINDS = ("log_uniform", "uniform", "choice", "grid")
SEARCHED = ("synthesis", "student", "buffer", "rounds", "seed")
"""parts of a configuration that may be searched, unlike those that all trials share (teacher, data)"""

Point = dict[str, Any]
"""one value for each searched setting, by dotted name"""


@dataclass(frozen=True)
class Dimension:
    """One searched setting.

    Attributes:
        name: dotted name, as on the command line.
        kind: of `KINDS`; log_uniform, uniform: between two numbers, both included, whole ones where the setting is an
            integer; choice, grid: of a list, unordered (choice) or enumerated by a grid (grid).
        values: the two bounds, or the list.
        whole: whether the setting is an integer.
    """

    name: str
    kind: str
    values: tuple[Any, ...]
    whole: bool

    @property
    def is_range(self) -> bool:
        return self.kind in ("log_uniform", "uniform")

    def at(self, share: float) -> Any:
        """Return the value at a share in [0, 1] of the range or list."""
        if not self.is_range:
            return self.values[min(int(share * len(self.values)), len(self.values) - 1)]
        low, high = self.values
        if self.whole and self.kind == "uniform":
            return min(low + int(share * (high - low + 1)), high)
        if self.kind == "log_uniform":
            value = math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
        else:
            value = low + share * (high - low)
        value = min(max(value, low), high)  # exp(log(x)) may miss x
        return round(value) if self.whole else value

    def share_of(self, value: Any) -> float:
        """Return a value's position in the range or list, in [0, 1]; the inverse of `at`."""
        if not self.is_range:
            return self.values.index(value) / max(1, len(self.values) - 1)
        low, high = self.values
        if self.kind == "log_uniform":
            return (math.log(value) - math.log(low)) / (math.log(high) - math.log(low))
        return float((value - low) / (high - low))


@dataclass(frozen=True)
class Space:
    """The space of settings of a search.

    Attributes:
        dimensions: in the order of the file.
        scale: settings in which all trials differ from the experiment, usually a reduced scale.
    """

    dimensions: tuple[Dimension, ...]
    scale: dict[str, Any]

    def grid(self) -> Iterator[Point]:
        """Return all points of a space of lists, the last setting varying fastest."""
        for values in itertools.product(*(dimension.values for dimension in self.dimensions)):
            yield dict(zip((dimension.name for dimension in self.dimensions), values, strict=True))

    @property
    def grid_size(self) -> int:
        """Return the number of points of `grid`."""
        return math.prod(len(dimension.values) for dimension in self.dimensions)


def space_of(config: SearchConfig) -> Space:
    """Return the space that a search's configuration describes, checked against the experiment's settings.

    Raises:
        InputError: an unknown setting, an empty range, a logarithmic range that is not positive, a value that the
            setting does not take.
    """
    described: dict[str, Any] = dict(config.space) if isinstance(config.space, dict) else {}
    if unknown := [key for key in described if key not in ("search", "scale")]:
        raise InputError(f"space.{unknown[0]}", described[unknown[0]], "left out", "a space has search and scale alone")
    searched = described.get("search")
    if not isinstance(searched, dict) or not searched:
        remedy = "name at least one, such as synthesis.coefficients.tv: {log_uniform: [1.0e-5, 0.1]}"
        raise InputError("space.search", searched, "a list of settings with their ranges", remedy)
    scale = described.get("scale") or {}
    if not isinstance(scale, dict):
        raise InputError("space.scale", scale, "settings, as in the experiment's file", "write them below each other")
    settings = merged(experiment(config), scale)
    _blame("space.scale", lambda: _trial(settings))
    dimensions = tuple(_dimension(name, spec, settings) for name, spec in searched.items())
    return Space(dimensions, scale)


def experiment(config: DistillConfig) -> dict[str, Any]:
    """Return only the settings of the experiment, as raydream distill takes them."""
    settings = as_dict(config)
    return {field.name: settings[field.name] for field in fields(DistillConfig)}


def settings_at(settings: Mapping[str, Any], point: Point) -> dict[str, Any]:
    """Return nested settings with the values of a point."""
    changed = dict(settings)
    for name, value in point.items():
        head, _, rest = name.partition(".")
        changed[head] = settings_at(changed[head], {rest: value}) if rest else value
    return changed


def merged(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Merge nested settings; where both have one, the second counts."""
    both = {
        key: merged(one[key], other[key])
        for key in one.keys() & other.keys()
        if isinstance(one[key], dict) and isinstance(other[key], dict)
    }
    return {**one, **other, **both}


def config_at(config: DistillConfig, space: Space, point: Point) -> DistillConfig:
    """Build a trial's configuration; raises InputError where its settings contradict each other."""
    return _trial(settings_at(merged(experiment(config), space.scale), point))


def _trial(settings: dict[str, Any]) -> DistillConfig:
    """Check the settings of a trial; raises InputError."""
    config = validate(DistillConfig, settings)
    if names := config.synthesis.coefficients.automatic:
        remedy = "in the experiment's own file, auto is replaced by a number before the first trial"
        raise InputError(f"synthesis.coefficients.{names[0]}", AUTO, "a number in a space", remedy)
    return config


def _dimension(name: str, spec: Any, settings: dict[str, Any]) -> Dimension:
    field, now = f"space.search.{name}", _setting(name, spec, settings)
    if not isinstance(spec, dict) or len(spec) != 1 or next(iter(spec)) not in KINDS:
        remedy = "for example {log_uniform: [1.0e-5, 0.1]} or {choice: [0, 1, 2]}"
        raise InputError(field, spec, f"one of {', '.join(KINDS)} with its values", remedy)
    ((kind, values),) = spec.items()
    whole = isinstance(now, int) and not isinstance(now, bool)
    if not isinstance(values, list) or not values:
        raise InputError(field, values, "a list of values", "give at least one")
    dimension = Dimension(name, kind, tuple(values), whole)
    if dimension.is_range:
        _check_range(field, dimension)
    elif any(values.index(value) != index for index, value in enumerate(values)):
        raise InputError(field, values, "values that differ", "leave out those that come twice")
    for value in values:
        at = settings_at(settings, {name: value})
        _blame(field, lambda at=at: _trial(at))  # type: ignore[misc]
    return dimension


def _check_range(field: str, dimension: Dimension) -> None:
    values = list(dimension.values)
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    if len(values) != 2 or not numbers or not all(map(math.isfinite, values)) or values[0] >= values[1]:
        allowed = "two numbers, the lower one first"
        raise InputError(field, values, allowed, "YAML reads 1e-3 as text: write 1.0e-3, or change the range")
    if dimension.kind == "log_uniform" and values[0] <= 0:
        remedy = "there is no logarithm of the lower bound: raise it, or use uniform or choice"
        raise InputError(field, values, "> 0 on a logarithmic scale", remedy)


def _setting(name: str, spec: Any, settings: Mapping[str, Any]) -> Any:
    known = leaves({part: settings[part] for part in SEARCHED}, whole=("arguments",))
    if name not in known:
        near = difflib.get_close_matches(name, known, 3, 0.0)
        allowed = f"a setting of {', '.join(SEARCHED)}"
        raise InputError(f"space.search.{name}", spec, allowed, f"did you mean {' or '.join(near)}?")
    return known[name]


def _blame(field: str, check: Callable[[], Any]) -> None:
    """Attribute an error to its part of the space."""
    try:
        check()
    except InputError as error:
        raise InputError(f"{field} ({error.field})", error.value, error.allowed, error.remedy) from error


def full_scale(config: SearchConfig, point: Point) -> DistillConfig:
    """Build the experiment's configuration at full scale with a point's values; raises InputError as `config_at`."""
    return config_at(config, Space((), {}), point)


def shown(point: Point) -> str:
    """Format a point in one line."""
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in point.items()
    )
