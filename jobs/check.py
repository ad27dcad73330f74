"""Check a machine, of one with a GPU above all: does raydream compute there, how fast, and the same bits twice?"""

import sys

from raydream.device_check.command import check

if __name__ == "__main__":
    sys.exit(check(__doc__))
