"""Conversion between configurations and the plain values of YAML, JSON and the command line."""

from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from raydream.errors import InputError

Config = TypeVar("Config")


def validate(kind: type[Config], settings: dict[str, Any]) -> Config:
    """Convert nested dictionaries of settings to a checked configuration; raises InputError for its first error."""
    try:
        return TypeAdapter(kind).validate_python(settings)
    except ValidationError as error:
        raise first_error(error) from error


def as_dict(config: Any) -> dict[str, Any]:
    """Convert a configuration to nested dictionaries in the plain types of YAML and JSON."""
    values: dict[str, Any] = TypeAdapter(type(config)).dump_python(config, mode="json")
    return values


def field_path(place: tuple[int | str, ...]) -> list[str]:
    """Return the dotted path of an error of pydantic's, without the types of a union."""
    return [str(part) for part in place if not ("[" in str(part) or str(part).startswith("constrained-"))]


def first_error(
    error: ValidationError, path: tuple[str, ...] = (), remedy: str = "see --help for what it means"
) -> InputError:
    """Describe the first of pydantic's errors in one sentence.

    Args:
        path: path of the checked value.
        remedy: what the user can do about it.
    """
    errors = error.errors()
    # A union has an error for each of its types, of which one that was written for users says what is wrong.
    first = next((each for each in errors if isinstance(each.get("ctx", {}).get("error"), InputError)), errors[0])
    inner, place = first.get("ctx", {}).get("error"), [*path, *field_path(first["loc"])]
    if isinstance(inner, InputError):
        return _in_place(inner, place)
    field = ".".join(place)
    if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return InputError(field, first["input"], "a known setting", "--help all lists them")
    if first["type"] in ("dataclass_type", "dataclass_exact_type"):
        return InputError(field, first["input"], "a section of settings by name", remedy)
    allowed = first["msg"].removeprefix("Input should be ").partition(", unable to parse")[0]
    return InputError(field, first["input"], allowed, remedy)


def _in_place(error: InputError, path: list[str]) -> InputError:
    """Rename the field of an error to its place in a list of components: verifiers.0.mean for teacher.mean."""
    usual, _, field = error.field.partition(".")
    place = path[:-1] if path and path[-1] == field else path
    if not field or not place or place[0] == usual:
        return error
    return InputError(".".join([*place, field]), error.value, error.allowed, error.remedy)
