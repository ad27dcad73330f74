"""Makes the packages that the environment names look as though they were not installed, from a process's start on."""

import os
import sys

MISSING = frozenset(os.environ["MISSING_PACKAGES"].split(","))


class Bare:
    """A finder that finds none of them, and else what another one finds."""

    def __init__(self, finder):
        self._finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in MISSING else self._finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self._finder, name)


sys.meta_path[:] = map(Bare, sys.meta_path)
