"""The files of a quantized network, their outputs, and the results of other calibration images."""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from raydream.applications.calibration_sources import noise_images, synthesized_images
from raydream.applications.quantizing import Quantizing, calibration_rows
from raydream.config import QuantizeConfig
from raydream.data.calibration import CalibrationImages
from raydream.data.splits import Dataset, Split
from raydream.errors import RaydreamError
from raydream.evaluation.accuracy import logits_of
from raydream.evaluation.calibration import reliability
from raydream.evaluation.comparison import agreement
from raydream.networks.export import export_onnx
from raydream.quantization.integer_form import integer_form
from raydream.quantization.onnx_static import OnnxNetwork, quantize_onnx
from raydream.quantization.pt2e import quantize_program, save_program
from raydream.seeds import derive_seed
from raydream.store.shards import ShardStore
from raydream.teachers.teacher import Teacher

FLOAT, QUANTIZED, PROGRAM = "teacher.onnx", "student.onnx", "student.pt2"


def as_calibration(config: QuantizeConfig, images: np.ndarray) -> CalibrationImages:
    """Wrap uint8 images [N,C,H,W], normalized as the teacher's input."""
    return CalibrationImages(images, config.teacher.mean, config.teacher.std)


def write_files(
    config: QuantizeConfig,
    teacher: Teacher,
    network: Any,
    images: np.ndarray,
    folder: Path,
    note: Callable[[str], None] = lambda text: None,
) -> None:
    """Write the teacher and the quantized network as ONNX and, where all bits are 8, as a program of torchao.

    Args:
        teacher: on the CPU.
        network: fake-quantized, made by `Quantizing`.
        images: uint8 [N,C,H,W], of which some calibrate.
        note: called with a sentence where torchao cannot be used.
    """
    shape, wanted = config.teacher.input_shape, config.quantization
    export_onnx(teacher.network, shape, folder / FLOAT)
    if not wanted.integer:
        export_onnx(integer_form(network), shape, folder / QUANTIZED)
        return
    chosen = as_calibration(config, images[calibration_rows(len(images), wanted.calibration_images)])
    quantize_onnx(folder / FLOAT, folder / QUANTIZED, chosen, wanted.chosen_ranges, wanted.kept)
    try:
        program = quantize_program(teacher.network, shape, chosen, wanted.kept)
        save_program(program, shape, folder / PROGRAM)
    except RaydreamError as error:
        note(str(error))


def said_by_file(config: QuantizeConfig, path: Path, images: np.ndarray, threads: int) -> np.ndarray:
    """Return an ONNX file's logits, float32 [N,K], for uint8 images [N,C,H,W]."""
    return OnnxNetwork(path, threads).logits(as_calibration(config, images))


def by_source(
    config: QuantizeConfig,
    teacher: Teacher,
    images: np.ndarray,
    real: Dataset,
    folder: Path,
    threads: int = 1,
    on_work: Callable[[], None] = lambda: None,
) -> list[dict[str, Any]]:
    """Measure post-training quantization on the test split, by source of calibration images; nothing is trained.

    Args:
        teacher: on the CPU.
        images: uint8 [N,C,H,W] of the run.
        folder: the run's folder, which has the teacher's ONNX file and keeps the made images.
    """
    count = min(len(images), config.quantization.calibration_images)
    sources = {"these images": images[calibration_rows(len(images), count)]}
    for name in config.quantization.compared:
        sources[name] = _images_of(name, config, teacher, count, real, folder, on_work)
    teacher_says = logits_of(teacher.network, teacher.normalization, real.test.images)
    rows = []
    for name, pixels in sources.items():
        said = _said(config, teacher, pixels, real.test, folder, threads)
        rows.append(
            {
                "source": name,
                "images": len(pixels),
                "accuracy": float((said.argmax(1) == real.test.labels).mean()),
                "agreement": agreement(said, teacher_says),
                "calibration_error": reliability(said, real.test.labels).error,
            }
        )
    return rows


def _images_of(
    name: str,
    config: QuantizeConfig,
    teacher: Teacher,
    count: int,
    real: Dataset,
    folder: Path,
    on_work: Callable[[], None],
) -> np.ndarray:
    if name == "noise":
        return noise_images(teacher, count, config.seed)
    if name == "real":
        order = np.random.default_rng(derive_seed(config.seed, "real images")).permutation(len(real.train.labels))
        return real.train.images[np.sort(order[:count])]
    place = folder / "calibration" / name
    place.mkdir(parents=True, exist_ok=True)
    return synthesized_images(teacher, config.synthesis, "deepdream", count, config.seed, ShardStore(place), on_work)


def _said(
    config: QuantizeConfig, teacher: Teacher, images: np.ndarray, split: Split, folder: Path, threads: int
) -> np.ndarray:
    """Return the teacher's logits after post-training quantization calibrated on all of these images."""
    wanted = config.quantization
    if wanted.integer:
        with tempfile.TemporaryDirectory() as place:
            path, float_file = Path(place) / QUANTIZED, folder / FLOAT
            quantize_onnx(float_file, path, as_calibration(config, images), wanted.chosen_ranges, wanted.kept)
            return said_by_file(config, path, split.images, threads)
    plain = replace(wanted, method="post_training", calibration_images=len(images))
    only = replace(config, quantization=plain, additions=replace(config.additions, rounds=0))
    network = Quantizing(only, teacher, images).run()
    return logits_of(network, teacher.normalization, split.images)
