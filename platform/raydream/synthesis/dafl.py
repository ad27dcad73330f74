"""DAFL: a generator network trained against the teacher alone (Chen et al., ICCV 2019)."""

import torch
from torch import Tensor

from raydream.synthesis.learning import LearningSynthesizer, weights_of
from raydream.synthesis.request import Request, Synthesis
from raydream.synthesis.view import View, draw_view


class DAFL(LearningSynthesizer):
    """min over the network G of CE(T(G(z)), argmax T(G(z))) - alpha_a mean |features| - alpha_e H(mean prediction).

    Each batch continues to train G, with Adam's moments, from the previous batch's state on new latent codes at each
    update, and is then made from codes of its own. G chooses which classes it shows, so a request's classes are ignored
    and the targets are the classes that the teacher sees in the stored images. The entropy term makes all classes
    appear. No student takes part, as in the paper.
    """

    def _attempt(self, request: Request, random: torch.Generator, restarts: int) -> Synthesis | None:
        network = self._network(request)
        optimizer = torch.optim.Adam(network.parameters(), self._stage.learning_rate, self._stage.betas)
        self._restore(optimizer)
        trained = self._train(network, optimizer, lambda: self._codes(request, random), request, random, restarts)
        if trained is None:
            return None
        recorded, _ = trained
        images = self._images(network, self._codes(request, random))
        self._state = weights_of(network) | _moments_of(optimizer)
        targets = self.engine.logits(images).argmax(dim=1).cpu()
        return self._made(images, request, recorded, restarts, targets)

    def _view(self, count: int, random: torch.Generator) -> View:
        return draw_view(self._stage.jitter, self._config.flip, random)

    def _restore(self, optimizer: torch.optim.Adam) -> None:
        """Restore the moments; the settings are the configuration's."""
        found = optimizer.state_dict()
        for name, value in self._state.items():
            kind, _, rest = name.partition(".")
            if kind == "adam":
                index, _, moment = rest.partition(".")
                found["state"].setdefault(int(index), {})[moment] = value.clone()  # Adam updates it in place
        optimizer.load_state_dict(found)


def _moments_of(optimizer: torch.optim.Adam) -> dict[str, Tensor]:
    return {
        f"adam.{index}.{name}": value.detach().clone()
        for index, moments in optimizer.state_dict()["state"].items()
        for name, value in moments.items()
    }
