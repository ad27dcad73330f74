"""Switch the terms of an experiment's objective on and off, in all combinations, over several seeds."""

import sys

from raydream.commands import main

if __name__ == "__main__":
    sys.exit(main(command="ablate"))
