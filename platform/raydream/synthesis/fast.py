"""A meta-initialized generator, after FastDFKD ("Up to 100x faster data-free knowledge distillation", AAAI 2022)."""

from typing import Any

import torch

from raydream.synthesis.learning import LearningSynthesizer, weights_of
from raydream.synthesis.request import Request, Synthesis


class Fast(LearningSynthesizer):
    """min over a copy of the network G and codes z of CE(T(G(z)), y) + alpha_f R_feature + alpha R_masked_kl.

    Each batch takes a copy of G and new codes, trains both by a few updates with a fresh Adam, and consists of the
    copy's images of the codes. G, which initializes every batch, is itself learned: after each batch it moves a share
    of the way to the copy (Reptile, Nichol et al. 2018), so that few updates are enough. R_feature compares a moving
    average of the statistics over batches, which is also part of the state and takes in each batch's last update. A
    batch without a student omits the last term. Each update crops every image separately.
    """

    def _attempt(self, request: Request, random: torch.Generator, restarts: int) -> Synthesis | None:
        network = self._network(request)
        self.engine.begin(self._state.get("statistics"))
        start, rate = weights_of(network), self._config.generator
        codes = self._codes(request, random).requires_grad_()
        groups: list[dict[str, Any]] = [
            {"params": network.parameters()},
            {"params": [codes], "lr": rate.code_learning_rate},
        ]
        optimizer = torch.optim.Adam(groups, self._stage.learning_rate, self._stage.betas)
        trained = self._train(network, optimizer, lambda: codes, request, random, restarts)
        if trained is None:
            return None
        recorded, _ = trained
        images = self._images(network, codes)
        end = weights_of(network)
        learned = {name: torch.lerp(value, end[name], rate.outer_rate) for name, value in start.items()}
        statistics = self.engine.compared()
        self._state = learned if statistics is None else {**learned, "statistics": statistics}
        return self._made(images, request, recorded, restarts)
