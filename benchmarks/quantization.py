"""What is left of a network's accuracy with few bits, by bits, method, calibration images and seed; what files cost.

    python benchmarks/quantization.py --config QUANTIZE.yaml --bits W8A8 W4A8 --methods post_training \
        --sources deep_inversion noise deepdream real --seeds 5 --measure test=FILE --json OUT

QUANTIZE.yaml is a configuration of jobs/quantize.py, whose `synthesis` and `new_images` say what images are made.
Sources: deep_inversion, deepdream (that method's images), noise (N(0, 1) as the network sees it), real (as many of
--train or of the configuration's data, without their labels). Each combination and seed is one run of
`applications/quantizing.py`, or, where all bits are 8 and nothing is trained, of ONNX Runtime's quantizer; one process,
no Ray. --latency also measures the 8-bit ONNX files beside the float one.

A run that is in OUT is not made again, nor are images in --images; a run of distillation that was killed resumes from
its last epoch. Real files to measure on: as in `data.test`; without --measure those of the configuration's `data`.
"""

import argparse
import itertools
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from raydream.applications.calibration_sources import CalibrationMethod, noise_images, synthesized_images
from raydream.applications.quantizing import Quantizing, calibration_rows
from raydream.compute import use_device
from raydream.config import QuantizeConfig
from raydream.config.conversion import as_dict, validate
from raydream.data import Split, load_data
from raydream.data.calibration import CalibrationImages
from raydream.data.files import open_files
from raydream.evaluation.accuracy import logits_of
from raydream.evaluation.calibration import reliability
from raydream.evaluation.comparison import accuracy_by_class, agreement
from raydream.evaluation.intervals import summarize
from raydream.networks.export import export_onnx
from raydream.quantization.layers import packed_bytes
from raydream.quantization.measuring import file_costs
from raydream.quantization.onnx_static import OnnxNetwork, quantize_onnx
from raydream.search.space import merged
from raydream.seeds import derive_seed
from raydream.store.atomic import write_json
from raydream.store.folders import LocalFolder
from raydream.store.shards import ShardStore
from raydream.supervised.library import trained_teacher
from raydream.teachers.loading import load_teacher
from raydream.teachers.teacher import Teacher, fingerprint_of

SOURCES = ("deep_inversion", "noise", "deepdream", "real")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing, and write after each run."""
    given = _options(arguments)
    use_device("cpu", given.threads, 0)
    base = yaml.safe_load(given.config.read_text(encoding="utf-8"))
    if given.checkpoint is not None:
        base = merged(base, {"teacher": {"checkpoint": str(given.checkpoint)}})
    teacher = _teacher(validate(QuantizeConfig, base))
    measured = _measured(given, validate(QuantizeConfig, base))
    network, normalization = teacher.network, teacher.normalization
    float_says = {name: logits_of(network, normalization, split.images) for name, split in measured.items()}
    done: list[dict[str, Any]] = json.loads(given.json.read_text(encoding="utf-8")) if given.json.exists() else []
    counts = given.counts or [validate(QuantizeConfig, base).new_images]
    choices = itertools.product(range(given.seeds), given.bits, given.methods, given.ranges, given.sources, counts)
    for seed, bits, method, ranges, source, count in choices:
        keys = {"bits": bits, "method": method, "ranges": ranges, "source": source, "seed": seed, "images": count}
        if any(all(each.get(key) == value for key, value in keys.items()) for each in done):
            continue
        weights, activations = (int(each) for each in bits[1:].split("A"))
        wanted = {"weights": weights, "activations": activations, "method": method, "ranges": ranges}
        wanted["calibration_images"] = count
        # What differs from the configuration; `images` only says where they come from.
        changes = {"seed": seed, "images": source, "new_images": count, "quantization": wanted}
        config = validate(QuantizeConfig, merged(base, changes))
        images = _images(given, config, teacher, source)
        done.append({**keys, **_run(given, config, teacher, images, measured, float_says)})
        write_json(given.json, done)
        print(json.dumps({key: value for key, value in done[-1].items() if "by_class" not in key}), flush=True)
    _print(done)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, help="the teacher's weights, instead of the configuration's")
    parser.add_argument("--bits", nargs="+", default=["W8A8"], metavar="W4A8")
    parser.add_argument("--methods", nargs="+", default=["post_training"], choices=["post_training", "distillation"])
    parser.add_argument("--ranges", nargs="+", default=["auto"])
    parser.add_argument("--sources", nargs="+", default=["deep_inversion"], choices=SOURCES)
    parser.add_argument("--counts", nargs="+", type=int, help="numbers of images; default: the configuration's")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--images", type=Path, default=Path("runs/calibration"), help="folder to keep images in")
    parser.add_argument("--train", type=Path, help="real images to calibrate on")
    parser.add_argument("--measure", nargs="*", default=[], metavar="NAME=FILE", help="real images to measure on")
    parser.add_argument("--most", type=int, help="images of each set that are measured on, drawn at random")
    parser.add_argument("--latency", action="store_true")
    parser.add_argument("--json", type=Path, required=True)
    return parser.parse_args(arguments)


def _teacher(config: QuantizeConfig) -> Teacher:
    if config.teacher.checkpoint is not None:
        return load_teacher(config.teacher)
    return trained_teacher(config.teacher, config.training, config.data)[0]


def _measured(given: argparse.Namespace, config: QuantizeConfig) -> dict[str, Split]:
    if given.measure:
        named = (each.partition("=") for each in given.measure)
        return {name: _split(Path(path), config, given.most) for name, _, path in named}
    real = load_data(config.data, config.teacher)
    assert real is not None, "name real images to measure on: --measure NAME=FILE"
    return {"validation": real.validation, "test": real.test}


def _split(path: Path, config: QuantizeConfig, most: int | None) -> Split:
    source = open_files(str(path), "--measure", config.teacher.input_shape)
    rows = np.sort(np.random.default_rng(0).permutation(sum(source.parts))[:most])
    return Split(source.read(rows), source.labels()[rows])


def _images(given: argparse.Namespace, config: QuantizeConfig, teacher: Teacher, source: str) -> np.ndarray:
    """uint8 [N,C,H,W], as many of each source."""
    count, seed = config.new_images, config.seed
    if source == "noise":
        return noise_images(teacher, count, seed)
    if source == "real":
        random = np.random.default_rng(derive_seed(seed, "real images"))
        if given.train is None:
            real = load_data(config.data, config.teacher)
            assert real is not None, "name the real images in a file: --train FILE"
            return real.train.images[np.sort(random.permutation(len(real.train.labels))[:count])]
        files = open_files(str(given.train), "--train", config.teacher.input_shape)
        return files.read(np.sort(random.permutation(sum(files.parts))[:count]))
    decides = json.dumps([teacher.fingerprint, seed, count, source, as_dict(config.synthesis)])
    folder = given.images / fingerprint_of([decides.encode()])
    folder.mkdir(parents=True, exist_ok=True)
    method: CalibrationMethod = "deepdream" if source == "deepdream" else "deep_inversion"
    return synthesized_images(teacher, config.synthesis, method, count, seed, ShardStore(folder))


def _run(
    given: argparse.Namespace,
    config: QuantizeConfig,
    teacher: Teacher,
    images: np.ndarray,
    measured: dict[str, Split],
    float_says: dict[str, np.ndarray],
) -> dict[str, Any]:
    began = time.perf_counter()
    # One folder for each run, so that one that was killed resumes; the file of a finished run is small.
    name = fingerprint_of([json.dumps([teacher.fingerprint, as_dict(config)]).encode(), images.tobytes()])
    folder = given.images / name
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {}
    if config.quantization.integer:
        path = _quantized_file(config, teacher, images, folder)
        session = OnnxNetwork(path, given.threads)
        said = {name: session.logits(_seen(config, split.images)) for name, split in measured.items()}
        found["file_bytes"] = path.stat().st_size
        if given.latency:
            costs = file_costs([_float_file(config, teacher, folder), path], config.teacher.input_shape)
            found["costs"] = {name: asdict(cost) for name, cost in zip(("float", "int8"), costs, strict=True)}
    else:
        run = Quantizing(config, teacher, images, LocalFolder(folder))
        network = run.run()
        said = {name: logits_of(network, teacher.normalization, split.images) for name, split in measured.items()}
        found["packed_bytes"] = packed_bytes(teacher.network, run.bits)
    found["seconds"] = time.perf_counter() - began
    for name, split in measured.items():
        found[name] = {
            "images": len(split.labels),
            "float_accuracy": float((float_says[name].argmax(1) == split.labels).mean()),
            "accuracy": float((said[name].argmax(1) == split.labels).mean()),
            "accuracy_by_class": accuracy_by_class(said[name], split.labels),
            "agreement": agreement(said[name], float_says[name]),
            "calibration_error": reliability(said[name], split.labels).error,
        }
    return found


def _seen(config: QuantizeConfig, images: np.ndarray) -> CalibrationImages:
    return CalibrationImages(images, config.teacher.mean, config.teacher.std)


def _float_file(config: QuantizeConfig, teacher: Teacher, folder: Path) -> Path:
    path = folder / "float.onnx"
    if not path.exists():
        export_onnx(teacher.network, config.teacher.input_shape, path)
    return path


def _quantized_file(config: QuantizeConfig, teacher: Teacher, images: np.ndarray, folder: Path) -> Path:
    wanted = config.quantization
    chosen = images[calibration_rows(len(images), wanted.calibration_images)]
    path = folder / "int8.onnx"
    quantize_onnx(_float_file(config, teacher, folder), path, _seen(config, chosen), wanted.chosen_ranges, wanted.kept)
    return path


def _print(done: list[dict[str, Any]]) -> None:
    keys = ("bits", "method", "ranges", "source", "images")
    for choice in dict.fromkeys(tuple(each[key] for key in keys) for each in done):
        runs = [each for each in done if tuple(each[key] for key in keys) == choice]
        for name in (name for name, value in runs[0].items() if isinstance(value, dict) and "accuracy" in value):
            lost = summarize([100 * (run[name]["accuracy"] - run[name]["float_accuracy"]) for run in runs])
            print(*choice, f"{name}: {lost['mean']:+.2f} ± {lost['interval']:.2f} points of {len(runs)} seeds")


if __name__ == "__main__":
    main()
