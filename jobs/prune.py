"""Make a trained network smaller by whole channels, with nothing but a finished set of images, on Ray."""

import sys

from raydream.commands import main

if __name__ == "__main__":
    sys.exit(main(command="prune"))
