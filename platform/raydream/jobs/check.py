"""Check a machine, one with a GPU above all: does raydream compute there, how fast, and the same bits twice?"""

from collections.abc import Sequence

from raydream.device_check import command


def check(words: Sequence[str]) -> int:
    """Run `raydream check` with these arguments; returns the exit status. It needs only torch, numpy and pydantic."""
    return command.check(__doc__, words)
