"""Diagnose a trained network before it is inverted, and suggest settings."""

import sys

from raydream.commands import main

if __name__ == "__main__":
    sys.exit(main(command="doctor"))
