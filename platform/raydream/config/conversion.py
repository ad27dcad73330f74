"""Between configurations and the plain values of YAML, JSON and the command line."""

from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from raydream.errors import InputError

Config = TypeVar("Config")


def validate(kind: type[Config], settings: dict[str, Any]) -> Config:
    """Settings as nested dictionaries to a checked configuration; raises InputError for the first wrong field."""
    try:
        return TypeAdapter(kind).validate_python(settings)
    except ValidationError as error:
        raise _first_error(error, settings) from error


def as_dict(config: Any) -> dict[str, Any]:
    """The inverse of `validate`, in the plain types of YAML and JSON."""
    values: dict[str, Any] = TypeAdapter(type(config)).dump_python(config, mode="json")
    return values


def field_path(place: tuple[int | str, ...]) -> list[str]:
    """Where an error of pydantic's is, without what it says of the types of a union."""
    return [str(part) for part in place if not ("[" in str(part) or str(part).startswith("constrained-"))]


def _first_error(error: ValidationError, settings: Any) -> InputError:
    first = error.errors()[0]
    inner = first.get("ctx", {}).get("error")
    if isinstance(inner, InputError):
        return inner
    path = field_path(first["loc"])
    allowed = first["msg"].removeprefix("Input should be ")
    if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return InputError(".".join(path), first["input"], "a known setting", "--help lists them all")
    return InputError(".".join(path), first["input"], allowed, "see --help for what it means")
