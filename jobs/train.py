"""Train a teacher on real data; `raydream distill` with the same teacher, training and data finds it again."""

import sys

from raydream.commands import main

if __name__ == "__main__":
    sys.exit(main(command="train"))
