"""The uses of each layer of a network: jobs can observe, prune or quantize it, or say why not; and export the whole."""

import copy
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from raydream.config import PruneConfig, QuantizeConfig, TeacherConfig
from raydream.diagnosis.findings import Finding
from raydream.errors import InputError, first_line
from raydream.extras import require
from raydream.networks.batch_norm import batch_norm_layers, keeps_statistics
from raydream.networks.export import export_onnx
from raydream.networks.observed import last_layer
from raydream.networks.quantized import is_quantized
from raydream.pruning.checks import check_prunable
from raydream.pruning.streams import follow
from raydream.quantization.checks import check_quantizable

GIVEN = "given"
"""source of a checkpoint or images that a diagnosis needs no path of"""
YES = "yes"
LARGE_MAP = 12
"""pixels of the last convolution's answer, in height and width, from which images look larger than those of training;
networks for 224 x 224 end with 7 x 7 or 8 x 8, those for 32 x 32 with 8 x 8 at most"""


@dataclass(frozen=True)
class Layer:
    """A layer with weights or statistics, and what can be done with it.

    Attributes:
        name, kind: its name, and its class.
        map: height and width of its answer, as 8x8; empty for vectors and layers that do not run.
        observed, pruned, quantized: yes, or why not; empty where the question does not arise.
    """

    name: str
    kind: str
    map: str
    observed: str
    pruned: str
    quantized: str


@dataclass(frozen=True)
class Structure:
    """The jobs that a network can be used for.

    Attributes:
        layers: in order of definition.
        pruned, exported, quantized: of the whole network: yes, with what is left out, or why not.
        last: name of the layer that makes the logits; None where it cannot be determined.
    """

    layers: list[Layer]
    pruned: str
    exported: str
    quantized: str
    last: str | None


def structure(network: nn.Module, config: TeacherConfig) -> Structure:
    """Ask each job's own check what it can do with a network; the network stays unchanged.

    Args:
        network: on the CPU, in eval mode.
    """
    named = replace(config, checkpoint=config.checkpoint or GIVEN, statistics="")  # which no job needs that asks here
    maps, streams = _maps(network, config.input_shape), _streams(network, config.input_shape)
    quantizable, quantized = _quantizable(network, named)
    layers = [
        Layer(
            name,
            type(layer).__name__,
            maps.get(name, ""),
            _observed(name, layer, maps),
            streams.get(name, "") if isinstance(layer, nn.Conv2d | nn.Linear) else "",
            _quantized(name, layer, quantizable, quantized),
        )
        for name, layer in network.named_modules()
        if _counts(layer)
    ]
    try:
        last: str | None = last_layer(network, config.classes)
    except ValueError:
        last = None
    return Structure(layers, _prunable(network, named), _exported(network, config), quantized, last)


def _counts(layer: nn.Module) -> bool:
    """Return whether a module has weights or statistics of its own and is a layer, no container."""
    own = [*layer.parameters(recurse=False), *layer.buffers(recurse=False)]
    return bool(own) and not any(True for _ in layer.children())


def _maps(network: nn.Module, shape: tuple[int, int, int]) -> dict[str, str]:
    """Return the layers that run, with height and width of their answers; empty for other answers than maps."""
    traced = copy.deepcopy(network).cpu().float().eval()
    found: dict[str, str] = {}

    def note(name: str) -> Callable[..., None]:
        def hook(layer: nn.Module, inputs: Any, output: Any) -> None:
            is_map = isinstance(output, Tensor) and output.dim() == 4
            found[name] = f"{output.shape[2]}x{output.shape[3]}" if is_map else ""

        return hook

    for name, layer in traced.named_modules():
        if _counts(layer):
            layer.register_forward_hook(note(name))
    with torch.no_grad():
        traced(torch.zeros(1, *shape))
    return found


def _observed(name: str, layer: nn.Module, running: dict[str, str]) -> str:
    if name in batch_norm_layers(nn.ModuleDict({"it": layer})) or batch_norm_layers(layer):
        if layer.running_mean is None:
            return "no: it keeps no running statistics (track_running_stats=False)"
        return YES if name in running else "no: it does not run in eval mode"
    if isinstance(layer, nn.GroupNorm | nn.LayerNorm | nn.modules.instancenorm._InstanceNorm):
        return f"no: a {type(layer).__name__} keeps no statistics of training data"
    return ""


def _streams(network: nn.Module, shape: tuple[int, int, int]) -> dict[str, str]:
    """Return for each layer whether its channels can be removed, or why not."""
    try:
        found = follow(network, shape)
    except InputError as error:
        return dict.fromkeys(dict(network.named_modules()), f"no: {error}")
    except Exception as error:  # tracing a user's network may raise any error
        return dict.fromkeys(dict(network.named_modules()), f"no: following it failed ({first_line(error)})")
    layers = dict.fromkeys(
        (name for name, _ in network.named_modules()), "no: its channels are the logits, or do not go on"
    )
    for stream in found.streams:
        layers |= dict.fromkeys(stream.layers("out"), YES)
    return layers | {name: f"no: its channels run through {reason}" for name, reason in found.left_out.items()}


def _prunable(network: nn.Module, config: TeacherConfig) -> str:
    try:
        kept = check_prunable(network, PruneConfig(images=GIVEN, teacher=config))
    except InputError as error:
        return f"no: {_sentence(error)}"
    except Exception as error:
        return f"no: {first_line(error)}"
    return f"{YES}; {kept}" if kept else YES


def _quantizable(network: nn.Module, config: TeacherConfig) -> tuple[list[str], str]:
    try:
        return check_quantizable(network, QuantizeConfig(images=GIVEN, teacher=config)), YES
    except InputError as error:
        return [], f"no: {_sentence(error)}"


def _quantized(name: str, layer: nn.Module, quantizable: list[str], whole: str) -> str:
    if name in quantizable:
        return YES
    if isinstance(layer, nn.Conv2d | nn.Linear):
        if is_quantized(layer):
            return "no: it is quantized already"
        return whole if whole != YES else "no: it does not run in eval mode"
    if isinstance(layer, nn.modules.conv._ConvNd):
        return f"no: a {type(layer).__name__} stays in floating point"
    return ""


def _exported(network: nn.Module, config: TeacherConfig) -> str:
    try:
        require("onnx", "exporting to ONNX")
        with tempfile.TemporaryDirectory() as folder:
            export_onnx(copy.deepcopy(network), config.input_shape, Path(folder) / "network.onnx")
    except InputError as error:
        return f"no: {error}"
    except Exception as error:  # whatever the exporter says of a user's network
        return f"no: {first_line(error)}"
    return YES


def _sentence(error: InputError) -> str:
    return f"{error.remedy} (allowed: {error.allowed})" if error.allowed else error.remedy


def structure_findings(network: nn.Module, found: Structure) -> list[Finding]:
    """Say what the structure of a network rules out."""
    findings = []
    if not keeps_statistics(network):
        text = "no BN layer keeps running statistics, which deep_inversion and adaptive compare with"
        remedy = (
            "set synthesis.method to deepdream, noise or dafl, take the network from before BN was folded, or name "
            "images to gather statistics from (teacher.statistics)"
        )
        findings.append(Finding("structure", "fault", text, remedy))
    else:
        skipped = [layer.name for layer in found.layers if layer.observed.startswith("no: it ")]
        if skipped:
            text = f"{len(skipped)} BN layers are not observed: {', '.join(skipped[:3])}"
            findings.append(Finding("structure", "suspected", text, "leave layers out that do not run in eval mode"))
    for job, answer in (("pruned", found.pruned), ("exported to ONNX", found.exported), ("quantized", found.quantized)):
        if not answer.startswith(YES):
            findings.append(Finding("structure", "note", f"it cannot be {job}: {answer.removeprefix('no: ')}"))
    if found.last is None:
        text = "the layer that makes the logits cannot be determined"
        findings.append(Finding("structure", "note", text, "do without dafl, and without continual learning"))
    return [*findings, *_size_findings(found)]


def _size_findings(found: Structure) -> list[Finding]:
    convolutions = [layer for layer in found.layers if layer.kind == "Conv2d" and layer.map]
    if len(convolutions) < 2:
        return []
    height, width = map(int, convolutions[-1].map.split("x"))
    if min(height, width) >= LARGE_MAP:
        text = f"the last convolution's map is {height} x {width}: large, so the images may be larger than in training"
        return [Finding("size", "suspected", text, "check teacher.input_shape, with real images (--real FOLDER)")]
    if max(height, width) == 1 and [each.map for each in convolutions[-3:]] == ["1x1"] * 3:
        text = "the last convolutions see a single pixel: the images may be smaller than in training"
        return [Finding("size", "suspected", text, "check teacher.input_shape")]
    return []
