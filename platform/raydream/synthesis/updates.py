"""One update of an inversion's pixels after another: view, gradient, Adam and clipping."""

import torch
from torch import Tensor

from raydream.synthesis.checkpoint import Checkpoint
from raydream.synthesis.gradient import Evaluation, PixelGradient
from raydream.synthesis.stages import Stage
from raydream.synthesis.view import View

Bounds = tuple[Tensor, Tensor] | None
"""lowest and highest value of each channel's pixels, each [1,C,1,1]; None: they are not clipped"""


class Updates:
    """Updates the pixels of one batch in one stage.

    Args:
        pixels: float [N,C,H,W] on the canvas, channels-last; they are updated in place.
        targets: int64 [N].
        gradient: of the objective.
        bounds: what the pixels are clipped to.

    Attributes:
        pixels: those given.
        optimizer: Adam, with its moments.
    """

    def __init__(self, pixels: Tensor, targets: Tensor, gradient: PixelGradient, stage: Stage, bounds: Bounds) -> None:
        self.pixels, self._targets, self._gradient, self._bounds = pixels, targets, gradient, bounds
        self.optimizer = torch.optim.Adam([pixels], stage.learning_rate, stage.betas, fused=True)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue from the pixels and moments of a checkpoint; raises ShardError if they do not fit."""
        checkpoint.restore_parameters(self.optimizer)

    def __call__(self, view: View, learning_rate: float) -> Evaluation:
        """Carry out one update; returns the objective before it, which is valid until the next one.

        Args:
            view: through which the networks see the images.
        """
        self.optimizer.param_groups[0]["lr"] = learning_rate
        evaluation = self._gradient(view(self.pixels.detach()), self._targets)
        # Fused Adam goes through memory: pixels and gradient lie in it in the same order, channels-last.
        self.pixels.grad = view.back(evaluation.gradient)
        self.optimizer.step()
        if self._bounds is not None:
            with torch.no_grad():
                self.pixels.clamp_(*self._bounds)
        return evaluation
