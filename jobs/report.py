"""Compare runs: their differences, curves, pictures and final figures, in one self-contained HTML page."""

import sys

from raydream.commands import main

if __name__ == "__main__":
    sys.exit(main(command="report"))
