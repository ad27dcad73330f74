"""Let other networks classify the images of a run: do they see the targets, too? (Table 2 of the paper)"""

import sys

from raydream.commands import main

if __name__ == "__main__":
    sys.exit(main(command="evaluate"))
