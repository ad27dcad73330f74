"""JSON and YAML from untrusted users or failing disks: read within bounds, or rejected in one sentence.

A small file can hold a value that exhausts the memory or the stack of the process that reads it, or takes it minutes:
thousands of brackets, numbers of thousands of digits, aliases of aliases. What these functions return holds none of it.
"""

import json
from collections.abc import Callable
from typing import Any

import yaml

from raydream.errors import DocumentError, first_line
from raydream.store.atomic import retry_transient
from raydream.store.folders import Folder

MOST_JSON_BYTES = 32 * 2**20
MOST_YAML_BYTES = 2**19
"""bytes of a document; raydream's largest have a tenth of these. YAML takes some 10 s for a mebibyte"""
DEEPEST = 50
"""levels of nested lists and mappings"""
MOST_BITS = 64
"""bits of an integer"""
MOST_VALUES = 100_000
"""values in a YAML document, each alias counted with all that it stands for"""
END_OF_TIME = 2.0**33
"""seconds since the epoch, in the year 2242: the latest moment that dates and pandas agree on is in 2262"""


def read_json(folder: Folder, name: str) -> Any:
    """Read the value that a JSON file holds.

    Raises:
        DocumentError: it is damaged, or exceeds a bound of this module.
        OSError: there is no regular file of this name, or it cannot be read.
    """
    return parse_json(_content(folder, name, MOST_JSON_BYTES), name)


def read_yaml(folder: Folder, name: str) -> Any:
    """Read the value that a YAML file holds, of the types that JSON has; raises as `read_json`."""
    return parse_yaml(_content(folder, name, MOST_YAML_BYTES), name)


def parse_json(content: bytes | str, name: str) -> Any:
    """Parse the value that a JSON document holds.

    Args:
        name: of the document, for the error.

    Raises:
        DocumentError: it is damaged, or exceeds a bound of this module.
    """
    return _parsed(json.loads, content, name, MOST_JSON_BYTES, MOST_JSON_BYTES)  # each value takes a byte at least


def parse_yaml(content: bytes | str, name: str) -> Any:
    """Parse the value that a YAML document holds, of the types that JSON has; see `parse_json`."""
    return _parsed(yaml.safe_load, content, name, MOST_YAML_BYTES, MOST_VALUES)


def is_moment(value: object) -> bool:
    """Return whether a value is a moment in seconds since the epoch, in [0, `END_OF_TIME`)."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < END_OF_TIME


def _content(folder: Folder, name: str, most: int) -> bytes:
    content: bytes = retry_transient(lambda: folder.open(name).read(most + 1))
    return content


def _parsed(
    parse: Callable[[bytes | str], Any], content: bytes | str, name: str, most_bytes: int, most_values: int
) -> Any:
    if len(content) > most_bytes:
        raise DocumentError(f"{name} is larger than {most_bytes:,} bytes")
    try:
        value = parse(content)
    except RecursionError as error:
        raise DocumentError(f"{name} is nested more than {DEEPEST} deep") from error
    # PyYAML passes on any exception of Python at a value that is not of the type it is tagged with.
    except (yaml.YAMLError, ValueError, TypeError, ArithmeticError, LookupError, AttributeError) as error:
        raise DocumentError(f"{name} cannot be read: {first_line(error)}") from error
    _check(value, name, most_values)
    return value


def _check(value: Any, name: str, most_values: int) -> None:
    waiting, count = [(value, 0)], 1
    while waiting:
        each, depth = waiting.pop()
        if isinstance(each, dict | list):
            inner = [*each, *each.values()] if isinstance(each, dict) else each
            count += len(inner)
            # Counted before they are traversed: aliases multiply at every level.
            if count > most_values:
                raise DocumentError(f"{name} holds more than {most_values:,} values, aliases followed")
            if depth == DEEPEST:
                raise DocumentError(f"{name} is nested more than {DEEPEST} deep")
            waiting += [(found, depth + 1) for found in inner]
        elif isinstance(each, int) and each.bit_length() > MOST_BITS:
            raise DocumentError(f"{name} holds an integer of more than {MOST_BITS} bits")
        elif each is not None and not isinstance(each, str | int | float):
            raise DocumentError(f"{name} holds a {type(each).__name__}, which JSON does not know")
