"""Check a machine, one with a GPU above all: does raydream compute there, how fast, and the same bits twice?"""

import sys

from raydream.commands import main

if __name__ == "__main__":
    sys.exit(main(command="check"))
