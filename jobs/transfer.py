"""Train a student from scratch on a finished set of images, toward the teacher that they are of, on Ray."""

import sys

from raydream.commands import main

if __name__ == "__main__":
    sys.exit(main(command="transfer"))
