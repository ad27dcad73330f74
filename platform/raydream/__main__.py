"""`python -m raydream`, which is the command `raydream`."""

import sys

from raydream.commands import main

if __name__ == "__main__":
    sys.exit(main())
