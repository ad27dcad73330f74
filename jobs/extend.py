"""Teach a trained network new classes while images inverted from it stand for the old ones, on Ray."""

import sys

from raydream.commands import main

if __name__ == "__main__":
    sys.exit(main(command="extend"))
