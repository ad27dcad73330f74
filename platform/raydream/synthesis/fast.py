"""A meta-initialized generator, after FastDFKD ("Up to 100x faster data-free knowledge distillation", AAAI 2022)."""

from typing import Any

import torch

from raydream.synthesis.learning import LearningSynthesizer, weights_of
from raydream.synthesis.request import Request, Synthesis


class Fast(LearningSynthesizer):
    """min over a copy of the network G and codes z of CE(T(G(z)), y) + alpha_f R_feature + alpha R_masked_kl.

    Each batch takes a copy of G and new codes, trains both by a few updates with a fresh Adam, and is what the copy
    then makes of the codes. G itself, from which all batches set out, is what is learned: it goes a share of the way to
    the copy (Reptile, Nichol et al. 2018), so that few updates are enough. R_feature compares a moving average of the
    statistics over batches, which is learned, too, and takes in each batch's last update. A batch without a student is
    made without the last term. Every image has a crop of its own in each update.
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
        trained = self._train(network, optimizer, lambda: codes, request, random)
        if trained is None:
            return None
        recorded, _ = trained
        images = self._images(network, codes)
        end = weights_of(network)
        learned = {name: torch.lerp(value, end[name], rate.outer_rate) for name, value in start.items()}
        statistics = self.engine.compared()
        self._state = learned if statistics is None else {**learned, "statistics": statistics}
        return self._made(images, request, recorded, restarts)
