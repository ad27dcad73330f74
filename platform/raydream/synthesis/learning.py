"""The base of synthesizers with a generator network: its initialization and training loop."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from raydream.compute import autocast, choose_dtype
from raydream.config import SynthesisConfig
from raydream.seeds import derive_seed
from raydream.synthesis.engine import Engine
from raydream.synthesis.generator_network import GeneratorNetwork, fresh_network
from raydream.synthesis.recorded import Recorded
from raydream.synthesis.request import Request, Synthesis
from raydream.synthesis.stages import stages_of
from raydream.synthesis.synthesizer import with_restarts
from raydream.synthesis.view import CroppedView, View, draw_crops
from raydream.teachers.teacher import Teacher


class LearningSynthesizer:
    """A synthesizer that trains a generator network against the teacher; a subclass defines how.

    See `Synthesizer`. An attempt that diverges leaves the state as it was.
    """

    def __init__(self, teacher: Teacher, config: SynthesisConfig, batches: int = 1) -> None:
        self._teacher, self._config = teacher, config
        (self._stage,) = stages_of(config, teacher.config.input_shape[1:])
        self.engine = Engine(teacher, config, config.terms, batches)
        dtype = choose_dtype(config.precision, teacher.device)
        self._dtype = torch.float32 if dtype == torch.float16 else dtype  # nothing keeps its gradients from vanishing
        self._black = teacher.normalization.canvas().valid_range()[0]
        self._state: dict[str, Tensor] = {}

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state learned from batch to batch; empty before the first."""
        return dict(self._state)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore a state that `state_dict` returned."""
        self._state = dict(state)

    def synthesize(self, request: Request) -> Synthesis:
        """Make one batch; see `Synthesizer.synthesize`."""
        setting, rate = "synthesis.generator.learning_rate", self._config.generator.learning_rate
        return with_restarts(self._attempt, request, setting, rate)

    def _attempt(self, request: Request, random: torch.Generator, restarts: int) -> Synthesis | None:
        """Train the network and make the images; None, with the state unchanged, where training diverged."""
        raise NotImplementedError

    def _network(self, request: Request) -> GeneratorNetwork:
        """Return the network with its learned weights, or with initial ones from the request's seed."""
        seed = derive_seed(request.seed, "generator network")
        network = fresh_network(self._config.generator, self._teacher, seed)
        names = {name: f"network.{name}" for name in network.state_dict()}
        if all(known in self._state for known in names.values()):
            network.load_state_dict({name: self._state[known] for name, known in names.items()})
        return network

    def _view(self, count: int, random: torch.Generator) -> View | CroppedView:
        """Draw the views of a number of images in one update: each image is cropped separately."""
        return draw_crops((count, *self._stage.size), self._stage.jitter, self._config.flip, self._black, random)

    def _codes(self, request: Request, random: torch.Generator) -> Tensor:
        """Draw latent codes [N,Z] from N(0, 1)."""
        codes = torch.randn(len(request.targets), self._config.generator.latent, generator=random)
        return codes.to(self._teacher.device)

    def _train(
        self,
        network: GeneratorNetwork,
        optimizer: torch.optim.Optimizer,
        codes: Callable[[], Tensor],
        request: Request,
        random: torch.Generator,
        restarts: int,
    ) -> tuple[Recorded, Tensor] | None:
        """Train the optimizer's parameters.

        Args:
            codes: returns the latent codes of an update.
            restarts: number of attempts before this one.

        Returns:
            the losses, and the images [N,C,H,W] on the canvas of the update with the lowest total; None where it
            diverged.
        """
        gradient, recorded = self.engine.gradient(request.student), Recorded(self._stage.iterations)
        targets = request.targets.to(self._teacher.device)
        kept, lowest = torch.zeros((), device=targets.device), torch.full((), math.inf, device=targets.device)
        if (resumed := request.checkpoint) is not None:
            recorded.restore(resumed.record)
            resumed.restore_random(random)
            resumed.restore_parameters(optimizer)
            shape = (len(targets), *self._teacher.config.input_shape)
            kept = resumed.like("kept.images", kept.new_empty(shape))
            lowest = resumed.like("kept.lowest", lowest)
        for _ in range(recorded.update, self._stage.iterations):
            view = self._view(len(targets), random)
            with autocast(self._dtype, self._teacher.device):
                images = network(codes())
            seen = view(images)
            evaluation = gradient(seen.detach(), targets)
            optimizer.zero_grad()
            torch.autograd.backward(seen, evaluation.gradient)
            optimizer.step()
            better = evaluation.total < lowest  # stays on the device, as reading it would wait for that
            lowest = torch.where(better, evaluation.total, lowest)
            kept = torch.where(better, images.detach(), kept)
            if recorded.is_due() and not recorded.record(evaluation, images):
                return None
            recorded.advance(request, restarts, random, optimizer, images=kept, lowest=lowest)
        finite = all(bool(weights.isfinite().all()) for weights in network.parameters())
        return (recorded, kept) if finite else None

    @torch.no_grad()
    def _images(self, network: GeneratorNetwork, codes: Tensor) -> Tensor:
        """Return the network's images of latent codes, uint8 [N,C,H,W]."""
        with autocast(self._dtype, self._teacher.device):
            images = network(codes)
        return self._teacher.normalization.canvas().quantize(images)

    def _made(
        self, images: Tensor, request: Request, recorded: Recorded, restarts: int, targets: Tensor | None = None
    ) -> Synthesis:
        """Assemble the synthesis that reports the images."""
        gradient = self.engine.gradient(request.student)
        return recorded.synthesis(images, gradient.layers, restarts, gradient.take_notes(), targets)


def weights_of(network: GeneratorNetwork) -> dict[str, Tensor]:
    """Copy a network's weights, by their names in a synthesizer's state."""
    return {f"network.{name}": value.detach().clone() for name, value in network.state_dict().items()}
