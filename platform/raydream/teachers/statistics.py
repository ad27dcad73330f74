"""The statistics that a teacher without batch normalization keeps of images that the user has."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from raydream.config import TeacherConfig
from raydream.data.files import LabeledSource, open_files
from raydream.data.sources import evenly_spread
from raydream.errors import InputError
from raydream.networks.batch_norm import batch_norm_layers, keeps_statistics
from raydream.networks.gathered import gather, gathers, keep_statistics
from raydream.teachers.checks import frozen
from raydream.teachers.normalization import Normalization

FEWEST, MOST = 16, 1024
"""images that statistics are gathered of"""
TOGETHER = 32
"""images in a pass"""


def add_statistics(network: nn.Module, config: TeacherConfig, field: str = "teacher") -> None:
    """Let a network keep the statistics of the images in `config.statistics`, unless that is empty or it has them.

    The images are read here, in the driver, and nothing but a mean and a variance per channel remains of them.

    Args:
        network: on the CPU; its mode is restored.
        field: name of the option that describes the network, for the error.

    Raises:
        InputError: images are missing, cannot be read, or are too few; or the network keeps BN statistics.
    """
    if not config.statistics:
        return
    if keeps_statistics(network):
        if not any(map(gathers, batch_norm_layers(network).values())):
            allowed = f"empty for {config.network}, whose batch normalization keeps statistics of its training data"
            raise InputError(f"{field}.statistics", config.statistics, allowed, "leave it out")
        return
    source = open_files(config.statistics, f"{field}.statistics", config.input_shape, resize=True)
    count = sum(source.parts)
    if count < FEWEST:
        allowed = f"at least {FEWEST} images, better a few hundred"
        raise InputError(f"{field}.statistics", config.statistics, allowed, f"there are {count}")
    with frozen(network):
        keep_statistics(network, gather(network, _normalized(source, config)))


def _normalized(source: LabeledSource, config: TeacherConfig) -> Iterator[torch.Tensor]:
    """Yield images [N,C,H,W] as the network takes them; raises InputError for one that cannot be read."""
    rows = np.array(evenly_spread(range(sum(source.parts)), MOST))
    normalization = Normalization(config.mean, config.std)
    for chosen in np.array_split(rows, -(-len(rows) // TOGETHER)):
        yield normalization(torch.from_numpy(source.read(chosen)))
