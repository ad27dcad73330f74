"""Torch's process group of the student's workers, which listens on no more addresses than necessary.

Ray Train always starts one, and torch's listens on all addresses without authentication.
"""

import datetime
import os
import socket
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import torch.distributed
from ray.train.torch import TorchConfig

from raydream.runtime.private_ray import torch_backend
from raydream.runtime.session import on_loopback


def backend_for(gpus: float) -> str:
    """Return the backend for workers that reserve this many GPUs each: NCCL, which needs a GPU per worker, or Gloo."""
    return "nccl" if gpus >= 1 else "gloo"


@dataclass
class StudentGroup(TorchConfig):  # type: ignore[misc]  # Ray has no types
    """Starts no group for one worker, one that meets in a file on a private Ray, and Ray Train's own on a cluster."""

    @property
    def backend_cls(self) -> type["_StudentBackend"]:
        return _StudentBackend


class _StudentBackend(torch_backend()):  # type: ignore[misc]
    def on_start(self, worker_group: Any, backend_config: StudentGroup) -> None:
        count = len(worker_group)
        if count == 1:
            return
        if not on_loopback():
            super().on_start(worker_group, backend_config)
            return
        context = ray.get_runtime_context()
        meeting = Path(context.get_temp_dir(), context.get_session_name(), f"process_group_{uuid.uuid4().hex}")
        joined = [
            worker_group.execute_single_async(
                rank, _join, backend_config.backend, f"file://{meeting}", rank, count, backend_config.timeout_s
            )
            for rank in range(count)
        ]
        ray.get(joined)


def _join(backend: str, meeting: str, rank: int, count: int, timeout_s: float) -> None:
    loopback = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
    os.environ["GLOO_SOCKET_IFNAME"] = os.environ["NCCL_SOCKET_IFNAME"] = loopback
    torch.distributed.init_process_group(
        backend, init_method=meeting, rank=rank, world_size=count, timeout=datetime.timedelta(seconds=timeout_s)
    )
