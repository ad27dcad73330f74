"""Compare runs: their differences, curves, pictures and final figures, in one self-contained HTML page."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from raydream.cli import run_tool
from raydream.runs.run_list import read_run, short_names


def report(words: Sequence[str]) -> int:
    """Run `raydream report` with these arguments; returns the exit status."""
    parser = argparse.ArgumentParser(prog="raydream report", description=__doc__, allow_abbrev=False)
    parser.add_argument("run", metavar="RUN", nargs="+", help="folder of a run, done or not, or its URL")
    out = "the page (default: comparison.html in the working directory)"
    parser.add_argument("--out", metavar="FILE", type=Path, default=Path("comparison.html"), help=out)
    return run_tool(parser, _report, words)


def _report(given: argparse.Namespace) -> None:
    for run in given.run:  # before torch is loaded
        read_run(run, "RUN")
    short_names(given.run)
    from raydream.reporting.comparison import write_comparison

    print(write_comparison(given.run, given.out))
