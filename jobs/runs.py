"""List the runs in a folder, show one, and delete those that are unfinished or old."""

import sys

from raydream.commands import main

if __name__ == "__main__":
    sys.exit(main(command="runs"))
