"""Reads and writes safetensors files whose content carries its own digest."""

import hashlib
import json
from collections.abc import Mapping

import numpy as np
import safetensors
import safetensors.numpy


def metadata_of(content: bytes) -> dict[str, str]:
    """Return the metadata of a safetensors file; empty if it has none.

    Args:
        content: bytes of a file that safetensors has loaded, which checks its header.
    """
    # The file begins with the length of its header, eight bytes, and the header, JSON.
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    metadata: dict[str, str] = header.get("__metadata__", {})
    return metadata


def packed(arrays: Mapping[str, np.ndarray], facts: Mapping[str, str] | None = None) -> bytes:
    """Return the bytes of a file with these arrays and texts, and a digest of them; see `unpacked`."""
    facts = facts or {}
    return safetensors.numpy.save(dict(arrays), {**facts, "digest": _digest(arrays, facts)})


def unpacked(content: bytes) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return the arrays and texts of a file that `packed` made; raises ValueError if a bit of it has changed."""
    try:
        arrays, facts = safetensors.numpy.load(content), metadata_of(content)
    except (KeyError, safetensors.SafetensorError) as error:
        raise ValueError(str(error)) from error
    if facts.pop("digest", None) != _digest(arrays, facts):
        raise ValueError("it is not what was written")
    return arrays, facts


def _digest(arrays: Mapping[str, np.ndarray], facts: Mapping[str, str]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for name in sorted(facts):
        digest.update(f"{name}={facts[name]}\n".encode())
    for name in sorted(arrays):
        digest.update(f"{name}{arrays[name].shape}{arrays[name].dtype}".encode())
        digest.update(np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
