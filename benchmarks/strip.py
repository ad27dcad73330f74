"""Synthesized images in rows of five, one for each class: for each, the one of which an independent network is surest.

Images of a run, and the verifier as `NETWORK=CHECKPOINT`, with the input of the run's teacher:

    raydream synthesize --config configs/cifar10_resnet20.yaml --images 128 --synthesis.batch_size 128 \
        --synthesis.iterations 1000 --run-dir runs/strip
    python benchmarks/strip.py --images runs/strip --verifier cifar_resnet56=weights/resnet56.th \
        --names airplane car bird cat deer dog frog horse ship truck \
        --out docs/pictures/cifar10_strip.png --json benchmarks/results/cifar10_strip.json
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image, ImageDraw, ImageFont

import raydream
from raydream.store.atomic import write_json

SIDE = 96
"""pixels of an image in the strip, by nearest neighbor"""
ROW = 5
"""images in a row: ten in one would be too small on a phone"""
GAP, LABEL, SIZE = 8, 24, 16
"""pixels between images, below them for a name, and of its letters"""
INK = "#777777"
"""color of names, legible on white and on black; the ground is transparent"""


def chosen(confidence: np.ndarray, targets: np.ndarray, classes: int) -> list[int]:
    """Return for each class the row of its image with the highest confidence.

    Args:
        confidence: float [N,K], the verifier's probabilities.
        targets: int [N].

    Raises:
        SystemExit: a class has no image.
    """
    rows = []
    for target in range(classes):
        (of,) = np.nonzero(targets == target)
        if not len(of):
            raise SystemExit(f"error: no image has the target {target}")
        rows.append(int(of[confidence[of, target].argmax()]))
    return rows


def strip(images: np.ndarray, names: list[str]) -> Image.Image:
    """Return images, uint8 [K,C,H,W], in rows with their names below."""
    height = -(-len(images) // ROW) * (SIDE + LABEL)
    picture = Image.new("RGBA", (ROW * (SIDE + GAP) - GAP, height))
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(SIZE)
    for index, (image, name) in enumerate(zip(images, names, strict=True)):
        left, top = index % ROW * (SIDE + GAP), index // ROW * (SIDE + LABEL)
        large = Image.fromarray(image.transpose(1, 2, 0)).resize((SIDE, SIDE), Image.Resampling.NEAREST)
        picture.paste(large, (left, top))
        draw.text((left + SIDE / 2, top + SIDE + LABEL / 2), name, INK, font, anchor="mm")
    return picture


def main() -> None:
    """Choose the images, and write the strip and what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", required=True, help="folder of a run")
    parser.add_argument("--verifier", required=True, help="NETWORK=CHECKPOINT")
    parser.add_argument("--names", nargs="+", required=True, help="a name for each class")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    config: dict[str, Any] = yaml.safe_load((Path(options.images) / "config.yaml").read_text(encoding="utf-8"))
    network, _, checkpoint = options.verifier.partition("=")
    described = {name: config["teacher"][name] for name in ("input_shape", "mean", "std", "classes")}
    verifier = raydream.load_teacher(network, checkpoint=checkpoint, **described)
    images = raydream.ImageSet(options.images)
    with torch.no_grad():
        logits = verifier.logits(torch.from_numpy(images.images)).cpu().numpy()
    confidence = np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
    rows = chosen(confidence, images.targets, len(options.names))
    strip(images.images[rows], options.names).save(options.out, optimize=True)
    told = {
        "images": len(images),
        "updates": config["synthesis"]["iterations"],
        "teacher_share": float((images.teacher_logits.argmax(1) == images.targets).mean()),
        "verifier": network,
        "verifier_share": float((logits.argmax(1) == images.targets).mean()),
        "chosen": [
            {"class": name, "row": row, "confidence": round(float(confidence[row, target]), 4)}
            for target, (name, row) in enumerate(zip(options.names, rows, strict=True))
        ],
    }
    write_json(options.json, told)


if __name__ == "__main__":
    main()
