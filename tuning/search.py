"""Search the settings of an experiment with Ray Tune, for those with which its student learns best."""

import sys

from raydream.commands import main

if __name__ == "__main__":
    sys.exit(main(command="search"))
