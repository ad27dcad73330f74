"""Entry point of `python -m raydream`, the same as the command `raydream`."""

import sys

from raydream.commands import main

if __name__ == "__main__":
    sys.exit(main())
