"""The public Python API: the work of the jobs in one process, for notebooks and scripts.

Letters in shapes: N images of C channels, H x W pixels, K classes. Pixels are uint8, 0 to 255, before normalization.
A `Teacher` is a frozen network with a description of its input; each function here returns the network that it
trains, prunes or extends as one, so that it can be measured, inverted and pruned in its turn. `teacher.network` is
the torch module.

Settings that a function has no argument for are given by the names and in the sections of the YAML files of the jobs
(`synthesis={"iterations": 300}`): see `raydream.config`. The same seed on the same kind of machine gives the same
result to the bit. Errors that a caller can fix are one sentence each (`InputError`).
"""

import copy
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from raydream.api_arguments import (
    GIVEN,
    OnProgress,
    Pixels,
    Settings,
    as_student,
    as_teacher,
    builder_of,
    check_invertible,
    configured,
    ignore_progress,
    labels_of,
    new_labels_of,
    on_cpu,
    pixels_of,
)
from raydream.applications.continual.learning import Callbacks, learn_classes
from raydream.applications.continual.methods import METHODS
from raydream.applications.continual.widening import check_widening
from raydream.applications.pruning import prune
from raydream.applications.quantized_files import write_files
from raydream.applications.quantizing import Quantizing
from raydream.applications.quantizing import described as described_quantized
from raydream.applications.quantizing import total_steps as total_quantizing_steps
from raydream.applications.rounds import rounds_of
from raydream.applications.transfer import run_epochs
from raydream.buffer.limiter import make_limiter
from raydream.cli import Command
from raydream.compute import use_device
from raydream.config import (
    QUANTIZED_STUDENT,
    ContinualConfig,
    DistillConfig,
    QuantizeConfig,
    SynthesizeConfig,
    TeacherConfig,
    TransferConfig,
)
from raydream.config.continual import default_coefficients_if_inverted
from raydream.config.conversion import validate
from raydream.config.synthesis import default_coefficients, default_coefficients_if_made
from raydream.data.image_set import ImageSet, InMemory
from raydream.data.splits import Split
from raydream.errors import InputError
from raydream.evaluation import accuracy as measured
from raydream.extras import require
from raydream.networks import check_python
from raydream.quantization.checks import check_quantizable
from raydream.runs import references as runs
from raydream.runs import run_folder
from raydream.schedule import Schedule
from raydream.seeds import derive_seed
from raydream.students.distillation import steps_to_settle
from raydream.synthesis.batch import BatchMaker
from raydream.synthesis.tasks import tasks_of
from raydream.teachers import loading
from raydream.teachers.checkpoints import check_values, load_weights
from raydream.teachers.checks import check_shapes
from raydream.teachers.statistics import add_statistics
from raydream.teachers.teacher import Teacher, make_teacher

__all__ = [
    "ImageSet",
    "InputError",
    "Teacher",
    "accuracy",
    "distill",
    "extend",
    "load_teacher",
    "prune",
    "quantize",
    "synthesize",
    "transfer",
]

log = logging.getLogger(__name__)


def load_teacher(
    network: nn.Module | str,
    *,
    input_shape: tuple[int, int, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    classes: int | None = None,
    checkpoint: str | None = None,
    arguments: Settings | None = None,
    statistics: str = "",
    device: str = "auto",
) -> Teacher:
    """Load a trained network to invert and to learn from; see `TeacherConfig`.

    Args:
        network: a torch.nn.Module, which is copied, from float32 [N,C,H,W] after normalization to logits [N,K]; or one
            by name: of this project, `torchvision:NAME`, `timm:NAME`, `package.module:factory`, or `run:DIR` for the
            network that a run trained, which needs no other argument.
        input_shape: (C, H, W), in pixels.
        mean, std: a number per channel, of pixel values in [0, 1]; the network sees (pixels / 255 - mean) / std.
        classes: K, at least 2.
        checkpoint: path or URL of the weights (.safetensors, or a state dict that torch.save wrote), of which
            https://...#sha256=CHECKSUM is downloaded once into a cache, or the name of published ones; needed for a
            network by name. Nothing in it is executed.
        arguments: of the factory of a network by name.
        statistics: for a network without batch normalization: path of a few hundred images, of which means and
            variances are kept, see `TeacherConfig.statistics`.
        device: auto, cpu, cuda or mps; auto: cuda where there is a GPU, else mps where there is one, else cpu.

    Raises:
        InputError: an argument is missing or out of range, the weights cannot be obtained, are of another network or
            unusable, or the network does not map images of that shape to K logits.
    """
    given = {"input_shape": input_shape, "mean": mean, "std": std, "classes": classes, "checkpoint": checkpoint}
    by_name = isinstance(network, str)
    name = str(network) if by_name else type(network).__name__
    if not name.startswith(runs.OF_RUN):
        needed = [*given] if by_name else [field for field in given if field != "checkpoint"]
        for field in needed:
            if given[field] is None:
                remedy = "only a run's network (run:DIR) brings all of this along"
                raise InputError(f"teacher.{field}", None, f"given for {name}", remedy)
    settings: dict[str, Any] = {field: value for field, value in given.items() if value is not None}
    settings |= {"network": name, "arguments": dict(arguments or {})}
    if statistics:
        settings["statistics"] = statistics
    config = validate(TeacherConfig, runs.resolve({"teacher": settings})["teacher"])
    if isinstance(network, nn.Module):
        check_python(network, "teacher.network", name)
        if checkpoint is None:
            check_values(network, network.state_dict(), "teacher.network", name)
        own = copy.deepcopy(network).cpu()
        if checkpoint is not None:
            load_weights(own, checkpoint, "teacher.checkpoint", name)
        add_statistics(own, config)
        teacher = make_teacher(own, replace(config, checkpoint=None))
    else:
        teacher = loading.load_teacher(config)
    check_shapes(teacher.network, config)
    return teacher.to(use_device(device, torch.get_num_threads(), torch.cuda.device_count()))


def synthesize(
    teacher: Teacher,
    images: int = 256,
    method: str = "deep_inversion",
    *,
    seed: int = 0,
    synthesis: Settings | None = None,
    generators: int = 0,
    run_dir: str | None = None,
    on_progress: OnProgress = ignore_progress,
) -> ImageSet:
    """Invert a teacher into images (Yin et al., CVPR 2020, sections 3.1 and 3.2).

    The images are those that `raydream synthesize` makes with these settings.

    Args:
        teacher: to invert.
        images: N, at least 1; made in batches of at most `synthesis.batch_size` (256), which losses are of.
        method: a key of `raydream.config.METHODS`, such as noise (eq. 2 without a prior), deepdream (eq. 3),
            deep_inversion (eq. 4-7), dafl (Chen et al., ICCV 2019), fast (after Fang et al., AAAI 2022) or noisy (after
            Tran et al., CVPR 2024). For adaptive (eq. 8-9), which needs a student: `distill`.
        seed: of all that is random, at least 0.
        synthesis: other settings, as in `SynthesisConfig`; where they name no coefficients, these follow from the
            teacher (`auto`).
        generators: Ray actors that make them, in a run folder, which `raydream synthesize --resume` resumes after
            an interruption; for a teacher that was loaded by name. 0: this process makes them, without Ray.
        run_dir: path or URL of that folder, which must be new; None: one in runs/.
        on_progress: called with the share of the work that is done, in [0, 1].

    Returns:
        the images, with targets and the teacher's logits; a torch data set.

    Raises:
        InputError: a setting that cannot work, such as a method that needs batch normalization for a teacher without.
        SynthesisError: the inversion kept diverging.
        RaydreamError: all generators failed for good.
    """
    settings = {"images": images, "seed": seed, "synthesis": {**(synthesis or {}), "method": method}}
    if generators:
        settings["generators"] = {"count": generators}
    config = configured(SynthesizeConfig, settings, teacher, default_coefficients)
    check_invertible(teacher, config.synthesis)
    if generators:
        return _by_ray(config, teacher, run_dir)
    tasks, made = tasks_of(config), []
    maker = BatchMaker("in-process", teacher, config.synthesis, batches=len(tasks))
    for index, task in enumerate(tasks.values()):

        def report(share: float, index: int = index) -> None:
            on_progress((index + share) / len(tasks))

        made.append(maker.make(task.order, None, None, report).batch)
    return ImageSet(InMemory(made))


def distill(
    teacher: Teacher,
    network: nn.Module | str,
    *,
    seed: int = 0,
    synthesis: Settings | None = None,
    student: Settings | None = None,
    rounds: Settings | None = None,
    samples_per_insert: float = 50.0,
    on_progress: OnProgress = ignore_progress,
) -> tuple[Teacher, ImageSet]:
    """Distill a student while images are made that compete with it: Adaptive DeepInversion (section 3.3, eq. 1, 8-9).

    Equals `raydream distill` in lockstep, in one process: to the bit on a CPU. On CUDA that takes
    `raydream.compute.compute_deterministically`, before anything is computed there.

    Args:
        teacher: to invert and to learn from.
        network: the student's: a torch.nn.Module, a copy of which learns from the weights that it has; or a name, for
            fresh weights.
        seed: of all that is random, at least 0.
        synthesis: of the images, as in `SynthesisConfig`; its method is adaptive unless it names another, and its
            coefficients are as in `synthesize`.
        student: how the student learns, as in `StudentConfig`.
        rounds: their number, and their number of batches, as in `RoundsConfig`.
        samples_per_insert: number of draws, on average, for each image that joins, > 0 (the paper: 50).
        on_progress: called with the share of the work that is done, in [0, 1].

    Returns:
        the student, and all images that were made.

    Raises:
        InputError: a setting that cannot work, or a student that does not take the teacher's images.
        DivergenceError: the inversion or the student diverged.
    """
    sections = {"synthesis": synthesis, "rounds": {**(rounds or {}), "lockstep": True}}
    settings = {
        "seed": seed,
        "buffer": {"samples_per_insert": samples_per_insert},
        "student": as_student(network, student),
        **{name: dict(section) for name, section in sections.items() if section},
    }
    config = configured(DistillConfig, settings, teacher, default_coefficients)
    build, schedule = builder_of(network, config, teacher), Schedule.of(config)
    check_invertible(teacher, config.synthesis)
    make_limiter(config, schedule, steps_to_settle(build()))
    for last in rounds_of(config, teacher, build=build):
        on_progress(last.step / schedule.total_steps)
    return as_teacher(last.student, teacher, config), ImageSet(InMemory(last.batches))


def transfer(
    teacher: Teacher,
    images: Pixels,
    network: nn.Module | str,
    *,
    epochs: int = 90,
    seed: int = 0,
    student: Settings | None = None,
    on_progress: OnProgress = ignore_progress,
) -> Teacher:
    """Train a student of any architecture on finished images, by the teacher's outputs alone (section 4.4, eq. 1).

    Equals `raydream transfer` from memory, in one process.

    Args:
        teacher: to learn from.
        images: to learn from; no label is looked at.
        network: the student's: a torch.nn.Module, a copy of which learns from the weights that it has; or a name, for
            fresh weights.
        epochs: passes over the images, at least 1 (the paper: 90, or 250 with MixUp).
        seed: of all that is random, at least 0.
        student: how it learns, as in `StudentConfig`.
        on_progress: called with the share of the work that is done, in [0, 1].

    Raises:
        InputError: a setting that cannot work, a student or images that do not fit the teacher.
        DivergenceError: the student diverged.
    """
    pixels = pixels_of(images, teacher)
    settings = {"images": GIVEN, "epochs": epochs, "seed": seed, "student": as_student(network, student)}
    config = configured(TransferConfig, settings, teacher)
    build = builder_of(network, config, teacher)

    def on_epoch(epoch: int, learning: nn.Module) -> None:
        on_progress(epoch / epochs)

    learned = run_epochs(config.student, teacher, pixels, epochs, seed, on_epoch, build)
    return as_teacher(learned, teacher, config)


def quantize(
    teacher: Teacher,
    images: Pixels,
    weights: int = 8,
    activations: int = 8,
    *,
    seed: int = 0,
    files: str | Path | None = None,
    quantization: Settings | None = None,
    additions: Settings | None = None,
    synthesis: Settings | None = None,
    student: Settings | None = None,
    on_progress: OnProgress = ignore_progress,
) -> Teacher:
    """Quantize a network to few bits, by calibration and, with fewer than 8, distillation on images alone.

    Args:
        teacher: to quantize, and to learn from.
        images: to calibrate on and to learn from.
        weights, activations: bits, 2 to 8, of the weights and inputs of convolutions and linear layers.
        seed: of all that is random, at least 0.
        files: folder for teacher.onnx, student.onnx and, where torchao fits, student.pt2; None: none.
        quantization: method, epochs and layers to keep, as in `QuantizationConfig`; method is post_training by default
            with 8 bits, and distillation with fewer.
        additions: rounds of images that compete with the quantized network, as in `AdditionsConfig`; none by default.
        synthesis: of these images, as in `SynthesisConfig`.
        student: how the network learns, as in `StudentConfig`.
        on_progress: called with the share of the work that is done, in [0, 1].

    Returns:
        the network with weights and inputs rounded to what these bits can hold, in floating point.

    Raises:
        InputError: a setting that cannot work, images that do not fit, or a network that cannot be quantized.
        SynthesisError, OSError: the inversion of a round kept diverging; the files cannot be written.
    """
    pixels = pixels_of(images, teacher)
    method = "post_training" if weights == activations == 8 else "distillation"
    sections = {"additions": additions, "synthesis": synthesis}
    settings = {
        "images": GIVEN,
        "seed": seed,
        "quantization": {"method": method, **(quantization or {}), "weights": weights, "activations": activations},
        "student": {**QUANTIZED_STUDENT, **(student or {}), "network": "teacher"},
        **{name: dict(section) for name, section in sections.items() if section},
    }
    config = configured(QuantizeConfig, settings, teacher, default_coefficients_if_made)
    check_quantizable(on_cpu(teacher), config)
    if config.additions.rounds:
        check_invertible(teacher, config.synthesis)
    steps = total_quantizing_steps(config, len(pixels)) or 1
    run = Quantizing(config, teacher, pixels, on_work=lambda step: on_progress(step / steps))
    network = run.run()
    if files is not None:
        require("quantize", "writing the files of a quantized network")
        Path(files).mkdir(parents=True, exist_ok=True)
        write_files(config, make_teacher(on_cpu(teacher), teacher.config), network, pixels, Path(files), log.warning)
    return make_teacher(network, described_quantized(teacher.config, run.bits)).to(teacher.device)


def extend(
    teacher: Teacher,
    images: Pixels,
    labels: np.ndarray | Tensor | Sequence[int],
    method: str = "deep_inversion",
    *,
    images_per_class: int = 250,
    epochs: int = 40,
    seed: int = 0,
    synthesis: Settings | None = None,
    student: Settings | None = None,
    on_progress: OnProgress = ignore_progress,
) -> Teacher:
    """Teach a network new classes, while images inverted from it stand for those that it knows (section 4.5, eq. 11).

    Equals one step of `raydream extend`, in one process.

    Args:
        teacher: to extend.
        images: real ones of the new classes.
        labels: int [N]: the new classes are K, K + 1 and so on, where the teacher has K.
        method: deep_inversion, adaptive or deepdream: eq. 11 with images by these; balanced: with a balanced softmax,
            better where new classes are few beside the old ones; abd: the losses of Smith et al., ICCV 2021;
            lwf_mc, finetune: without images of the old classes.
        images_per_class: that are made of each old class, at least 1 (the paper: 250).
        epochs: passes over the new images, at least 1.
        seed: of all that is random, at least 0.
        synthesis: of the images, as in `SynthesisConfig`.
        student: how the network learns, as in `StudentConfig`.
        on_progress: called with the share of the work that is done, in [0, 1].

    Returns:
        a network of all classes, the old ones first.

    Raises:
        InputError: a setting that cannot work, images or labels that do not fit, or a network whose output layer
            cannot be widened.
        DivergenceError: the inversion or the learning diverged.
    """
    old, known = teacher.config.classes, [name for name, each in METHODS.items() if each.images != "real"]
    if method not in known:
        raise InputError("method", method, f"one of {', '.join(known)}", "choose one of these")
    new = Split(pixels_of(images, teacher), new_labels_of(labels, len(images), old))
    classes = int(new.labels.max()) + 1
    settings = {
        "seed": seed,
        "methods": [method],
        "images_per_class": images_per_class,
        "epochs": epochs,
        "steps": [{"classes": list(range(old, classes))}],
        "student": {"learning_rate": 0.02, **(student or {}), "network": "teacher"},
        **({"synthesis": dict(synthesis)} if synthesis else {}),
    }
    config = configured(ContinualConfig, settings, teacher, default_coefficients_if_inverted)
    check_widening(on_cpu(teacher), teacher.config)
    how = METHODS[method]
    if how.images == "made":
        check_invertible(teacher, replace(config.synthesis, method=how.synthesizer))
    calls = Callbacks(lambda epoch, *_: on_progress(0.5 + 0.5 * epoch / epochs), lambda share: on_progress(share / 2))
    learned, _ = learn_classes(config, how, teacher, new, None, derive_seed(seed, "continual", 1), calls)
    return make_teacher(learned, replace(teacher.config, classes=classes, checkpoint=None)).to(teacher.device)


def accuracy(teacher: Teacher, images: Pixels, labels: np.ndarray | Tensor | Sequence[int]) -> float:
    """Return the share in [0, 1] of images whose highest logit is their label (top-1).

    Args:
        teacher: a teacher, a student, or another result of a function here.
        images: uint8 [N,C,H,W], not normalized; the teacher's normalization is applied to them.
        labels: int [N], in [0, K).

    Raises:
        InputError: images or labels that do not fit the network, or each other.
    """
    pixels = pixels_of(images, teacher)
    named = labels_of(labels, len(pixels), 0, teacher.config.classes)
    return measured.accuracy(teacher.network, teacher.normalization, pixels, named)


def _by_ray(config: SynthesizeConfig, teacher: Teacher, run_dir: str | None) -> ImageSet:
    """Synthesize by the generators of a run, in its folder."""
    if teacher.config.checkpoint is None:
        allowed = "0 for a teacher that only this process has"
        remedy = "load it by a name (package.module:factory) with a checkpoint, from which other processes can build it"
        raise InputError("generators", config.generators.count, allowed, remedy)
    from raydream.jobs.synthesize import synthesize as run_synthesize  # here, as Ray takes seconds to import

    command = Command(config, run_dir or run_folder.default_path(config.experiment), None, by_default=not run_dir)
    run_folder.check_new(command.run_dir)
    run_synthesize(command)
    return ImageSet(command.run_dir)
