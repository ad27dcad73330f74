"""Invert a trained network into a Parquet data set of images, with parallel generators on Ray."""

import sys

from raydream.commands import main

if __name__ == "__main__":
    sys.exit(main(command="synthesize"))
