"""Make a trained network int8 or smaller, with nothing but a finished set of images, on Ray."""

import sys

from raydream.commands import main

if __name__ == "__main__":
    sys.exit(main(command="quantize"))
