"""What students learn from images of different settings, with how many images the teacher and a verifier agree.

    python benchmarks/students.py --config configs/cifar10_resnet20_student.yaml --settings SETTINGS.yaml \
        --real REAL.npz --verifier NETWORK=CHECKPOINT --seeds 3 --images DIR --json OUT

SETTINGS.yaml maps a name to what differs from the configuration. For each name and seed the images are made, judged as
they are stored, and a student is trained on them alone (`applications/rounds.py`: one process, no Ray). REAL.npz holds
`x`, uint8 [N,H,W,C], and `y`, int [N], on which students are measured and nothing else happens. A run that is in OUT
already is not made again, nor are images that are in DIR: settings that differ in the student alone share them.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from raydream.applications.rounds import rounds_of
from raydream.compute import use_device
from raydream.config import DistillConfig
from raydream.config.conversion import as_dict, validate
from raydream.evaluation.accuracy import accuracy
from raydream.evaluation.cross_model import target_shares
from raydream.search.space import merged
from raydream.store.atomic import write_json
from raydream.store.shards import ShardStore
from raydream.teachers.loading import load_teacher
from raydream.teachers.teacher import Teacher, fingerprint_of


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing, and write after each run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--settings", type=Path, required=True, help="YAML: {name: {synthesis: {...}}}")
    parser.add_argument("--real", type=Path, required=True)
    parser.add_argument("--verifier", required=True, help="NETWORK=CHECKPOINT")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--images", type=Path, default=Path("runs/images"), help="folder to keep images in")
    parser.add_argument("--json", type=Path, required=True)
    given = parser.parse_args(arguments)
    use_device("cpu", given.threads, 0)
    base = yaml.safe_load(given.config.read_text(encoding="utf-8"))
    done: list[dict[str, Any]] = json.loads(given.json.read_text(encoding="utf-8")) if given.json.exists() else []
    for name, changes in yaml.safe_load(given.settings.read_text(encoding="utf-8")).items():
        for seed in range(given.seeds):
            if any(run["name"] == name and run["seed"] == seed for run in done):
                continue
            config = validate(DistillConfig, merged(base, {**(changes or {}), "seed": seed}))
            done.append({"name": name, "seed": seed, "changes": changes, **_run(config, given)})
            write_json(given.json, done)
            print(json.dumps(done[-1]), flush=True)


def _run(config: DistillConfig, given: argparse.Namespace) -> dict[str, Any]:
    teacher = load_teacher(config.teacher)
    network, _, checkpoint = given.verifier.partition("=")
    verifier = load_teacher(replace(config.teacher, network=network, checkpoint=checkpoint))
    real = np.load(given.real)
    images, labels = real["x"].transpose(0, 3, 1, 2), real["y"]
    curve: list[tuple[int, float]] = []

    began = time.perf_counter()
    for rounds in rounds_of(config, teacher, image_store(given.images, config, teacher)):
        curve.append((rounds.step, accuracy(rounds.student, teacher.normalization, images, labels)))
        print(f"step {rounds.step}: {curve[-1][1]:.1%} of {len(labels)} real images", flush=True)
    counts = [target_shares(rounds.batches, judge).sum(0) for judge in (teacher, verifier)]
    return {
        "images": sum(len(batch) for batch in rounds.batches),
        "student_accuracy": curve[-1][1],
        "curve": curve,
        "real_images": len(labels),
        "teacher_share": float(counts[0][0] / counts[0][1]),
        "verifier_share": float(counts[1][0] / counts[1][1]),
        "feature_distance": float(np.mean([made.provenance.losses.get("feature", np.nan) for made in rounds.batches])),
        "seconds": time.perf_counter() - began,
    }


def image_store(folder: Path, config: DistillConfig, teacher: Teacher) -> ShardStore:
    """Of the images that these settings make: named by all that decides what they will be."""
    decides: list[Any] = [teacher.fingerprint, config.seed, as_dict(config.synthesis)]
    if config.synthesis.competes:
        decides += [as_dict(config.student), as_dict(config.rounds), as_dict(config.buffer)]
    return ShardStore(folder / fingerprint_of([json.dumps(decides).encode()]))


if __name__ == "__main__":
    main()
