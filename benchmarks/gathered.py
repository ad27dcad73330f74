"""What do statistics of a user's images bring to a network without batch normalization?

    python benchmarks/gathered.py --work DIR --json benchmarks/results/gathered.json

A small ConvNeXt (unlike_networks.py) is trained on handwritten digits and kept in DIR. A cell is a setting and a seed:

    digits      deep_inversion, statistics of 300 digits that the network was not trained on
    photos      deep_inversion, statistics of 300 patches of scikit-learn's two photographs, scaled to 8 x 8
    deepdream   the image prior without statistics
    noise       the class loss alone

with coefficients that are auto, and otherwise as in balance.py, which says what is measured. A cell that is in the file
is not measured again.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from balance import measured, show
from doctor import NETWORKS, as_described, trained
from sklearn.datasets import load_sample_images

import raydream
from raydream.config import TeacherConfig
from raydream.data.digits import load_digits
from raydream.data.files import resized
from raydream.store.atomic import write_json

NETWORK = TeacherConfig(network="unlike_networks:digits_convnext")
METHODS = {"digits": "deep_inversion", "photos": "deep_inversion", "deepdream": "deepdream", "noise": "noise"}
AUTOMATIC = {"coefficients": {"feature": "auto", "tv": "auto"}}
GATHERED_OF = 300
"""images"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is missing, and write after each cell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder to keep networks and images in")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, required=True)
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    done: list[dict[str, Any]] = json.loads(given.json.read_text(encoding="utf-8")) if given.json.exists() else []
    network, test = trained(NETWORK, None, given.work)
    judge, _ = trained(NETWORKS["digits"], None, given.work)
    verifier = raydream.load_teacher(judge, **as_described(NETWORKS["digits"]))
    kept = {name: str(given.work / f"{name}.npz") for name in ("digits", "photos")}
    np.savez(kept["digits"], x=load_digits().validation.images[:GATHERED_OF].transpose(0, 2, 3, 1))
    np.savez(kept["photos"], x=_patches().transpose(0, 2, 3, 1))
    for seed in range(given.seeds):
        for setting, method in METHODS.items():
            if (setting, seed) in {(each["setting"], each["seed"]) for each in done}:
                continue
            described = as_described(NETWORK)
            teacher = raydream.load_teacher(network, statistics=kept.get(setting, ""), **described)
            keys = {"network": "digits_convnext", "accuracy": raydream.accuracy(teacher, test.images, test.labels)}
            found = measured(teacher, verifier, test, method, AUTOMATIC, seed)
            done.append({**keys, "setting": setting, "seed": seed, **found})
            write_json(given.json, done)
            print(json.dumps(done[-1]), flush=True)
    show(done)


def _patches() -> np.ndarray:
    """Return square patches of two photographs in gray, uint8 [N,1,8,8]."""
    random, found = np.random.default_rng(0), []
    photos = [photo.mean(2).astype(np.uint8) for photo in load_sample_images().images]
    for index in range(GATHERED_OF):
        photo, side = photos[index % len(photos)], int(random.integers(32, 200))
        top, left = (int(random.integers(0, length - side)) for length in photo.shape)
        found.append(resized(photo[None, None, top : top + side, left : left + side], (1, 8, 8))[0])
    return np.stack(found)


if __name__ == "__main__":
    main()
