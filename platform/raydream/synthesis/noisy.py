"""Class embeddings through a noisy layer, after NAYER (Tran et al., CVPR 2024)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from raydream.config import SynthesisConfig
from raydream.synthesis.embeddings import class_embeddings
from raydream.synthesis.learning import LearningSynthesizer, weights_of
from raydream.synthesis.request import Request, Synthesis
from raydream.teachers.teacher import Teacher


class NoisyLayer(nn.Module):
    """Random linear maps of the classes' embeddings, [K,D] to codes [N,Z]: the only source of variety in a batch.

    The n-th image of a class gets the n-th map, so no two images of a batch have the same code, and each map is shared
    by all classes that are asked for as often. Where classes take turns, the maps are those of NAYER: one for each K
    rows. Weights are drawn from N(0, 1) and biases are 0; both are then trained with the network.

    Args:
        embeddings: [K,D].
        targets: int64 [N], the class of each row.
        latent: Z.
        random: generator of the weights.
    """

    def __init__(self, embeddings: Tensor, targets: Tensor, latent: int, random: torch.Generator) -> None:
        super().__init__()
        shown, self._rows = torch.unique(targets.to(embeddings.device), return_inverse=True)
        self._earlier = _earlier(targets).to(embeddings.device)
        self._embeddings = embeddings[shown]
        self._maps = int(self._earlier.max()) + 1
        width = embeddings.shape[1]
        weight = torch.randn(self._maps * latent, width, generator=random)
        self.weight = nn.Parameter(weight.to(embeddings.device))
        self.bias = nn.Parameter(torch.zeros(self._maps * latent, device=embeddings.device))

    def forward(self) -> Tensor:
        """Return the codes [N,Z]."""
        codes = functional.linear(self._embeddings, self.weight, self.bias)
        return codes.view(len(self._embeddings), self._maps, -1)[self._rows, self._earlier]


def _earlier(targets: Tensor) -> Tensor:
    """Count, for each row, the earlier rows of the same class, int64 [N]."""
    alike = targets[:, None] == targets[None, :]
    return alike.tril(diagonal=-1).sum(dim=1)


class Noisy(LearningSynthesizer):
    """min over the network G and a fresh noisy layer M of CE(T(x), y) + alpha_f R_feature + alpha R_masked_kl.

    x = G(M(E[y])), with a fixed embedding E[y] of each class, which is standardized over the classes. Each batch draws
    M and trains it together with G by a fresh Adam; each update crops every image separately, as in NAYER.
    The images are those of the update with the lowest loss, before they are cropped. G is passed on from batch to
    batch, and restarts from scratch after every `restart_batches`; R_feature compares a moving average of the
    statistics over batches (see `SmoothedDistances`), which survives such a restart. A batch without a student omits
    the last term.
    """

    def __init__(self, teacher: Teacher, config: SynthesisConfig, batches: int = 1) -> None:
        super().__init__(teacher, config, batches)
        embeddings = class_embeddings(teacher.network, teacher.config, config.generator.embeddings)
        standardized = functional.batch_norm(embeddings, None, None, training=True)
        self._embeddings = standardized.to(teacher.device)

    def _attempt(self, request: Request, random: torch.Generator, restarts: int) -> Synthesis | None:
        network = self._network(request)
        self.engine.begin(self._state.get("statistics"))
        layer = NoisyLayer(self._embeddings, request.targets, self._config.generator.latent, random)
        parameters = [*network.parameters(), *layer.parameters()]
        optimizer = torch.optim.Adam(parameters, self._stage.learning_rate, self._stage.betas)
        trained = self._train(network, optimizer, layer, request, random, restarts)
        if trained is None:
            return None
        recorded, lowest = trained
        self._state = self._learned(weights_of(network))
        return self._made(self._teacher.normalization.canvas().quantize(lowest), request, recorded, restarts)

    def _learned(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the state after a batch; one without weights lets the next batch start from scratch."""
        made = self._state.get("batches", torch.zeros(1, dtype=torch.int64)) + 1
        if int(made) < self._config.generator.restart_batches:
            weights["batches"] = made
        else:
            weights = {}
        statistics = self.engine.compared()
        return weights if statistics is None else {**weights, "statistics": statistics}
