"""The latency of each layer at any number of channels, measured on this machine and kept (I_lat of eq. 10)."""

import copy
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

from raydream.evaluation.latency import Latency, device_name, measure_latencies
from raydream.networks.pruned import resize
from raydream.pruning.costs import input_shapes
from raydream.store.atomic import write_json

PASSES = 21
"""of which a layer's time is the median"""
WARM_UP_S = 0.02
"""seconds that a layer runs before timing; there are thousands of layers to time"""
SAVE_S = 10.0
"""least seconds between two writes of the growing table"""


class LatencyTable:
    """The latency of each layer alone, forwards, in eval mode. Missing entries are measured.

    Args:
        network: the network whose layers are looked up, on the device that is measured.
        input_shape: [C,H,W] of its images.
        batch_size: images in a pass, >= 1.
        folder: the folder for tables, one per device, versions, number of threads and batch size; None: no file.
        on_measured: called after each measurement.
    """

    def __init__(
        self,
        network: nn.Module,
        input_shape: tuple[int, int, int],
        batch_size: int,
        folder: Path | None = None,
        on_measured: Callable[[], None] = lambda: None,
    ) -> None:
        self._layers = dict(network.named_modules())
        self._shapes = input_shapes(network, input_shape)
        self._device = next(network.parameters()).device
        self._batch_size, self._on_measured = batch_size, on_measured
        self.conditions = conditions(self._device, batch_size)
        self._path = None if folder is None else folder / f"latency-{_digest(self.conditions)}.json"
        kept = (
            json.loads(self._path.read_text(encoding="utf-8")) if self._path is not None and self._path.exists() else {}
        )
        self._known: dict[str, Latency] = {key: Latency(**values) for key, values in kept.get("layers", {}).items()}
        self._saved, self._saved_at = len(self._known), time.monotonic()

    def __call__(self, name: str, channels_in: int, channels_out: int) -> Latency:
        """Return the latency of a layer with the given channels; 0 s for one that does not run."""
        if name not in self._shapes or min(channels_in, channels_out) < 1:
            return Latency(0.0, 0.0, 0.0, 0, self._batch_size)
        layer, (_, *shape) = self._layers[name], self._shapes[name]
        shape[-1 if isinstance(layer, nn.Linear) else 0] = channels_in
        key = f"{_kind(layer)} {'x'.join(map(str, shape))} {channels_out}"
        if key not in self._known:
            self._known[key] = self._measure(layer, shape, channels_in, channels_out)
            self._on_measured()
            if time.monotonic() - self._saved_at > SAVE_S:
                self.save()
        return self._known[key]

    def save(self) -> None:
        """Write the measurements since the last save; raises OSError."""
        self._saved_at = time.monotonic()
        if self._path is not None and len(self._known) > self._saved:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            layers = {key: asdict(latency) for key, latency in sorted(self._known.items())}
            write_json(self._path, {"conditions": self.conditions, "layers": layers})
            self._saved = len(self._known)

    def _measure(self, layer: nn.Module, shape: list[int], channels_in: int, channels_out: int) -> Latency:
        layer = copy.deepcopy(layer).eval()
        resize(layer, channels_in, channels_out)
        return measure_latencies([layer.to(self._device)], tuple(shape), self._batch_size, PASSES, WARM_UP_S)[0]


def conditions(device: torch.device, batch_size: int) -> dict[str, str | int]:
    """Return the machine and versions of a measurement; those of others are not comparable."""
    return {
        "device": device_name(device),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "batch_size": batch_size,
    }


def _kind(layer: nn.Module) -> str:
    """Return all that distinguishes layers besides sizes and numbers of channels."""
    if isinstance(layer, nn.Conv2d):
        depthwise = layer.groups == layer.in_channels > 1
        groups = "depthwise" if depthwise else layer.groups
        what = (layer.kernel_size, layer.stride, layer.padding, layer.dilation, groups, layer.bias is not None)
        return f"{type(layer).__name__}{what}".replace(" ", "")
    return type(layer).__name__


def _digest(conditions: dict[str, str | int]) -> str:
    return hashlib.blake2b(json.dumps(conditions, sort_keys=True).encode(), digest_size=6).hexdigest()
