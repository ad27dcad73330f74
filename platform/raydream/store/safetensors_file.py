"""The header of a safetensors file, of which the library reads the tensors alone from bytes."""

import json


def metadata_of(content: bytes) -> dict[str, str]:
    """Return what was written beside the tensors; empty where nothing was.

    Args:
        content: of a file that safetensors has loaded, which checks its header.
    """
    # The file begins with the length of its header, eight bytes, and the header, JSON.
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    metadata: dict[str, str] = header.get("__metadata__", {})
    return metadata
