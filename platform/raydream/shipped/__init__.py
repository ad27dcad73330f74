"""Files that come with raydream: configurations, presets, and spaces of searches.

In an installed package they lie in this folder. In a checkout they are where the repository has them: `configs/`,
`configs/presets/` and `tuning/spaces/`.
"""

import difflib
import itertools
from pathlib import Path

from raydream.errors import InputError

_HERE = Path(__file__).parent
_REPOSITORY = _HERE.parents[2]
_INSTALLED = (_HERE / "configs").is_dir()
CONFIGS = _HERE / "configs" if _INSTALLED else _REPOSITORY / "configs"
SPACES = _HERE / "spaces" if _INSTALLED else _REPOSITORY / "tuning" / "spaces"
PRESET, SPACE = "preset:", "space:"
"""before the names of presets and of spaces, where these are listed beside configurations"""


def shipped_files() -> dict[str, Path]:
    """All files that come with raydream by name: `digits`, `preset:cifar10_paper`, `space:images`."""
    found: dict[str, Path] = {}
    for prefix, folder in (("", CONFIGS), (PRESET, CONFIGS / "presets"), (SPACE, SPACES)):
        found |= {f"{prefix}{path.stem}": path for path in sorted(folder.glob("*.yaml"))}
    return found


def file_named(name: str, field: str, prefix: str = "") -> Path:
    """The file that a user names: a path, or the name of one that comes with raydream.

    Args:
        name: as the user gave it.
        field: the option, for the error.
        prefix: that a name may leave out, such as `space:` for the option --space.

    Raises:
        InputError: there is neither.
    """
    path, known = Path(name), shipped_files()
    if path.exists():  # also what is no regular file, such as a pipe or a folder, of which reading says more
        return path
    for each in (name, f"{prefix}{name}"):
        if each in known:
            return known[each]
    names = [*known, *(each.removeprefix(prefix) for each in known)]
    close = difflib.get_close_matches(name, names, 1)
    remedy = f"did you mean {close[0]}?" if close else "see `raydream configs ls` for those"
    raise InputError(field, name, "a file that exists, or the name of one that comes with raydream", remedy)


def description_of(path: Path) -> str:
    """The first sentence of the comment with which a file begins; empty where it has none."""
    lines = itertools.takewhile(lambda line: line.startswith("#"), path.read_text(encoding="utf-8").splitlines())
    return " ".join(line.removeprefix("#").strip() for line in lines).partition(". ")[0].rstrip(".")
