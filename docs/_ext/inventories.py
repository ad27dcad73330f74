"""Inventories for intersphinx that need no network: the few names of other projects that the API mentions.

`make docs` fetches nothing, so that it gives the same pages everywhere and passes without a network. A name that is
missing here stays text without a link: add its line.
"""

import zlib
from pathlib import Path

HEADER = (
    "# Sphinx inventory version 2\n# Project: {}\n# Version: \n# The remainder of this file is compressed using zlib.\n"
)
NAMES = {
    "python": (
        "https://docs.python.org/3/",
        """
        int py:class library/functions.html#int
        float py:class library/functions.html#float
        bool py:class library/functions.html#bool
        str py:class library/stdtypes.html#str
        bytes py:class library/stdtypes.html#bytes
        tuple py:class library/stdtypes.html#tuple
        list py:class library/stdtypes.html#list
        dict py:class library/stdtypes.html#dict
        None py:data library/constants.html#None
        object py:class library/functions.html#object
        Path py:class library/pathlib.html#pathlib.Path
        pathlib.Path py:class library/pathlib.html#pathlib.Path
        collections.abc.Callable py:class library/collections.abc.html#collections.abc.Callable
        collections.abc.Iterator py:class library/collections.abc.html#collections.abc.Iterator
        collections.abc.Mapping py:class library/collections.abc.html#collections.abc.Mapping
        collections.abc.Sequence py:class library/collections.abc.html#collections.abc.Sequence
        typing.Any py:data library/typing.html#typing.Any
        Any py:data library/typing.html#typing.Any
        """,
    ),
    "torch": (
        "https://docs.pytorch.org/docs/stable/",
        """
        torch.Tensor py:class tensors.html#torch.Tensor
        torch.device py:class tensor_attributes.html#torch.device
        torch.nn.Module py:class generated/torch.nn.Module.html#torch.nn.Module
        torch.nn.modules.module.Module py:class generated/torch.nn.Module.html#torch.nn.Module
        torch.utils.data.Dataset py:class data.html#torch.utils.data.Dataset
        torch.export.export py:function user_guide/torch_compiler/export/api_reference.html#torch.export.export
        """,
    ),
    "numpy": (
        "https://numpy.org/doc/stable/",
        """
        numpy.ndarray py:class reference/generated/numpy.ndarray.html#numpy.ndarray
        """,
    ),
    "ray": (
        "https://docs.ray.io/en/latest/",
        """
        ray.data.read_parquet py:function data/api/doc/ray.data.read_parquet.html#ray.data.read_parquet
        ray.data.Dataset py:class data/api/doc/ray.data.Dataset.html#ray.data.Dataset
        """,
    ),
}
"""by project: the address of its documentation, and a line `name role address` for each object"""


def inventories(folder: Path) -> dict[str, tuple[str, str]]:
    """Write each project's inventory as a file, and return intersphinx's mapping to them."""
    folder.mkdir(parents=True, exist_ok=True)
    mapping = {}
    for project, (address, names) in NAMES.items():
        lines = [f"{name} {role} 1 {place} -\n" for name, role, place in map(str.split, names.split("\n")[1:-1])]
        path = folder / f"{project}.inv"
        path.write_bytes(HEADER.format(project).encode() + zlib.compress("".join(lines).encode()))
        mapping[project] = (address, str(path))
    return mapping
