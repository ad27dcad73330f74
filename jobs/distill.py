"""Invert a trained network into images and distill a student from them, in rounds, on Ray."""

import sys

from raydream.commands import main

if __name__ == "__main__":
    sys.exit(main(command="distill"))
