"""Seeds, derived from the purpose of a random number and never from where it is computed.

Every Ray actor sees its GPU as device 0 and its index depends on scheduling, so neither may enter a seed: two
generators would make the same images, and a run could not be repeated with another number of generators.
"""

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derive_seed(run_seed: int, role: str, *path: int) -> int:
    """Return a 63-bit seed for one purpose: (run seed, role, batch index in the round, round) and the like.

    Args:
        run_seed: the run's `seed`.
        role: the purpose of the numbers, such as ``"synthesis"`` or ``"draw"``.
        path: integers that distinguish uses of one role.
    """
    text = "/".join([str(run_seed), role, *map(str, path)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(run_seed: int, role: str, *path: int) -> "torch.Generator":
    """Return a CPU random generator seeded by `derive_seed`: the same numbers on every machine and device."""
    import torch  # here, so that processes that only derive seeds (the buffer) do not pay for torch

    return torch.Generator().manual_seed(derive_seed(run_seed, role, *path))
