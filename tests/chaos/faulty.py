"""A digits network that fails wherever it runs in the generator of number 1, as on a machine with a broken device."""

import ray
from torch import Tensor, nn

from raydream.networks.digits import digits_network


class Faulty(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.network = digits_network(width=width)

    def forward(self, x: Tensor) -> Tensor:
        if ray.is_initialized() and ray.get_runtime_context().get_actor_name() == "generator-1":
            raise RuntimeError("the device of this machine is broken")
        return self.network(x)


def network(width: int = 8) -> nn.Module:
    return Faulty(width)
