"""Reads the header of a safetensors file, as the library reads only the tensors from bytes."""

import json


def metadata_of(content: bytes) -> dict[str, str]:
    """Return the metadata of a safetensors file; empty if it has none.

    Args:
        content: bytes of a file that safetensors has loaded, which checks its header.
    """
    # The file begins with the length of its header, eight bytes, and the header, JSON.
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    metadata: dict[str, str] = header.get("__metadata__", {})
    return metadata
