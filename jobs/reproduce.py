"""Make a table of the paper: all runs that it needs, in parallel on Ray, and the table beside the paper's."""

import sys

from raydream.commands import main

if __name__ == "__main__":
    sys.exit(main(command="reproduce"))
