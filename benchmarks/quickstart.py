"""The Python quickstart of README, run as it stands there; its two accuracies as JSON, from which README has them.

python benchmarks/quickstart.py --json benchmarks/results/quickstart.json
"""

import argparse
import re
import time
from pathlib import Path
from typing import Any

import torch

import raydream
from raydream.store.atomic import write_json

README = Path(__file__).parents[1] / "README.md"


def quickstart() -> str:
    """Return the code of the first Python block of README."""
    (code,) = re.findall(r"## Quickstart in Python\n.*?```python\n(.*?)```", README.read_text(encoding="utf-8"), re.S)
    return str(code)


def measured() -> dict[str, Any]:
    """Run the code, and return the accuracy of teacher and student on real test images, and the seconds it took."""
    begun = time.monotonic()
    names: dict[str, Any] = {}
    exec(compile(quickstart(), str(README), "exec"), names)  # the project's own README
    test = names["real"].test
    shares = {name: raydream.accuracy(names[name], test.images, test.labels) for name in ("teacher", "student")}
    return shares | {"seconds": round(time.monotonic() - begun, 1), "torch": torch.__version__}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    write_json(parser.parse_args().json, measured())
