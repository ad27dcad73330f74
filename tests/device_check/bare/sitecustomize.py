"""Makes the packages that the environment names look as though they were not installed, from a process's start on."""

import os
import sys

MISSING = frozenset(os.environ["MISSING_PACKAGES"].split(","))


class Absent:
    """A finder that finds none of them."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in MISSING:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Absent())
