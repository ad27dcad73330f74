"""What a process computes with, by what it has reserved."""

import torch


def use_device(cpus: float, gpus: float) -> torch.device:
    """Set this process's threads to max(1, cpus), and return the device that it should use.

    Ray shows each process only the GPUs that it reserved, so the first one visible is its own.
    """
    torch.set_num_threads(max(1, int(cpus)))
    return torch.device("cuda" if gpus > 0 and torch.cuda.is_available() else "cpu")
