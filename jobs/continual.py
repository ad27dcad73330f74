"""The former name of jobs/extend.py."""

import sys

from raydream.commands import main

if __name__ == "__main__":
    sys.exit(main(command="continual"))
