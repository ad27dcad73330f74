"""The mathematics of one update: the objective's value at the images and its gradient with respect to them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from raydream.compute import autocast
from raydream.errors import first_line
from raydream.losses.feature_statistics import FeatureDistances
from raydream.losses.objective import Objective, Observation
from raydream.memory import is_out_of_memory
from raydream.networks.observed import ObservedNetwork
from raydream.synthesis.compiled import compiled_alone, compiled_with
from raydream.synthesis.memory import Chunks

Found = tuple[Tensor, dict[str, Tensor], tuple[Tensor, ...]]
"""weighted total; terms; distances and compared statistics, empty where the objective has no term of features (no None,
which torch.func.grad does not pass through)"""


@dataclass(frozen=True)
class Evaluation:
    """The objective's value and gradient at some images.

    Attributes:
        gradient: of the weighted total, of the images' shape.
        total: the weighted total, a scalar.
        values: each term before its coefficient, scalars.
        distances: [L], feature distance of each BN layer; None where no term asks for them.
    """

    gradient: Tensor
    total: Tensor
    values: dict[str, Tensor]
    distances: Tensor | None


class PixelGradient:
    """Evaluates an objective, by all images at once or chunk by chunk, with the same result.

    The statistics and the mean prediction of a batch are those of all its images. In chunks they are therefore gathered
    in a first pass without gradients, and the chunks' gradients follow in a second (the teacher is in eval mode, so
    nothing else connects one chunk with another).

    Args:
        teacher: returns its BN statistics where the objective has a term of features, and what enters its last layer
            where it has one of activations.
        distances: compares those statistics with the running ones; None where no term is of features.
        student: a frozen network, where the objective has a competition.
        from_canvas: [1,C,1,1], factor on the images before the networks see them; the image prior looks at the
            images themselves (see `Normalization.canvas`).
        dtype: type of the networks' arithmetic.
        compiled: whether to use torch.compile. If compiling fails for any shape, the networks run uncompiled from then
            on, and a note says so.
        in_one_graph: where it is compiled, whether forward and backward pass are one graph, with the teacher's weights
            as constants. If this fails for any shape, they are several graphs from then on, and a note says so.
        chunk_size: images that pass through the networks at once; None: all.

    Attributes:
        compiled: whether torch.compile is used; False once that has failed.
        in_one_graph: whether both passes are compiled as one graph; False once that has failed.
        chunks: the number of images per pass through the networks that memory has allowed.
        layers: names of the BN layers whose feature distances are reported; none where the objective has no such term.
        compared: the statistics that the last evaluation compared, [2, C of all layers and uses]; None where the
            objective has no such term.
    """

    def __init__(
        self,
        objective: Objective,
        teacher: ObservedNetwork,
        distances: FeatureDistances | None,
        student: nn.Module | None,
        from_canvas: Tensor,
        dtype: torch.dtype,
        compiled: bool,
        in_one_graph: bool,
        chunk_size: int | None,
    ) -> None:
        self.layers = list(teacher.layers)
        self.chunks, self.compiled, self._from_canvas = Chunks(chunk_size), compiled, from_canvas
        self._objective, self._teacher, self._student, self._dtype = objective, teacher, student, dtype
        self._distances = distances
        self.compared: Tensor | None = None
        self.in_one_graph = compiled and in_one_graph
        self._code: dict[tuple[str, torch.Size], Callable[..., Any]] = {}
        self._tried: set[tuple[torch.Size, int]] = set()

    def __call__(self, images: Tensor, targets: Tensor) -> Evaluation:
        """Evaluate the objective; if memory runs out, evaluate again in chunks of half the size.

        Args:
            images: float [N,C,H,W], on the canvas.
            targets: int64 [N].

        Raises:
            SynthesisError: a single image does not fit into memory.
        """
        images = images.contiguous(memory_format=torch.channels_last)
        return self.chunks.fitting(lambda size: self._evaluate(images, targets, size), len(images), images.device)

    def at_once(self, images: Tensor, targets: Tensor) -> Evaluation:
        """Evaluate the objective at all images at once, and try nothing else where that fails: code to be captured."""
        images = images.contiguous(memory_format=torch.channels_last)
        return self._evaluate_either(images, targets, len(images))

    def take_notes(self) -> tuple[str, ...]:
        """Return the deviations since the last call, one sentence each."""
        return self.chunks.take_notes()

    def _evaluate(self, images: Tensor, targets: Tensor, size: int) -> Evaluation:
        shapes = images.shape, size
        if not self.compiled or shapes in self._tried:
            return self._evaluate_either(images, targets, size)
        try:
            # Where Dynamo gives up on a piece of code, it is to say so.
            with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
                evaluation = self._evaluate_either(images, targets, size)
        except Exception as error:  # whatever a missing or failing compiler raises
            if is_out_of_memory(error):
                raise
            reason = f"{type(error).__name__}: {first_line(error)}"
            if self.in_one_graph:
                self.in_one_graph = False
                self._tried.clear()
                self.chunks.note(f"compiling in several graphs, not in one ({reason})")
                return self._evaluate(images, targets, size)
            self.compiled = False
            self.chunks.note(f"compiling failed, going on without ({reason})")
            evaluation = self._evaluate_either(images, targets, size)
        self._tried.add(shapes)
        return evaluation

    def _evaluate_either(self, images: Tensor, targets: Tensor, size: int) -> Evaluation:
        if size < len(images):
            return self._in_chunks(images, targets, size)
        x = images.detach()
        if self.in_one_graph:
            with torch.no_grad():
                gradient, (total, values, features) = self._code_for(self._with_gradient, x)(x, targets)
        else:
            total, values, features = self._code_for(self._all_at_once, x)(x.requires_grad_(True), targets)
            scale = self._scale(len(images))
            (gradient,) = torch.autograd.grad(total * scale, x)
            gradient = gradient / scale
        distances, self.compared = (each.detach() for each in features) if features else (None, None)
        return Evaluation(gradient, total.detach(), _detached(values), distances)

    def _code_for(self, method: Any, x: Tensor) -> Callable[..., Any]:
        """A method of this object, compiled for images of one shape where this compiles."""
        if not self.compiled:
            return method  # type: ignore[no-any-return]
        key = method.__name__, x.shape
        if key not in self._code:
            whole = method == self._with_gradient
            constants = [*self._teacher.parameters(), *self._teacher.buffers()]
            self._code[key] = compiled_with(constants, method) if whole else compiled_alone(method)
        return self._code[key]

    def _scale(self, count: int) -> float:
        """Return the power of two that keeps fp16 gradients from vanishing under the mean's factor 1/N."""
        return 2.0 ** count.bit_length() if self._dtype == torch.float16 else 1.0

    def _run(self, images: Tensor) -> tuple[Observation, Tensor | None]:
        seen_images = images * self._from_canvas
        with autocast(self._dtype, images.device):
            logits, statistics, activations = self._teacher(seen_images)
            student_logits = None if self._student is None else self._student(seen_images).to(images.dtype)
        logits = logits.to(images.dtype)
        activations = None if activations is None else activations.to(images.dtype)
        prediction = logits.softmax(dim=1).mean(0) if self._objective.has("prediction") else None
        seen = Observation(images, None, logits, None, student_logits, activations, prediction)
        return seen, statistics

    def _all_at_once(self, images: Tensor, targets: Tensor) -> Found:
        seen, statistics = self._run(images)
        distances: Tensor | None = None
        features: tuple[Tensor, ...] = ()
        if self._distances is not None and statistics is not None:
            compared = self._distances.compared(statistics)
            distances = self._distances(compared)
            features = distances, compared
        full = _with_targets(seen, targets, distances)
        total, values = self._objective(full)
        return total, values, features

    def _with_gradient(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Found]:
        """The gradient and what it is of, as one piece of code for the compiler."""
        gradient, found = torch.func.grad(self._scaled, has_aux=True)(images, targets)
        return gradient / self._scale(len(images)), found

    def _scaled(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Found]:
        found = self._all_at_once(images, targets)
        return found[0] * self._scale(len(images)), found

    def _in_chunks(self, images: Tensor, targets: Tensor, size: int) -> Evaluation:
        gradient, total = torch.zeros_like(images), images.new_zeros(())
        values: dict[str, Tensor] = {}
        if self._objective.has("images"):
            x = images.detach().requires_grad_(True)
            prior, found = self._objective(Observation(images=x), "images")
            (gradient,) = torch.autograd.grad(prior, x)
            values, total = _detached(found), prior.detach()
        distances = means = pulls = None
        if self._distances is not None:
            statistics = self._statistics(images, size).requires_grad_(True)
            compared = self._distances.compared(statistics)
            distances, self.compared = self._distances(compared), compared.detach()
            feature, found = self._objective(Observation(distances=distances), "features")
            (pulls,) = torch.autograd.grad(feature, statistics)
            values |= _detached(found)
            total, distances = total + feature.detach(), distances.detach()
            means = statistics[0].detach()
        of_prediction = None
        if self._objective.has("prediction"):
            prediction = self._prediction(images, size).requires_grad_(True)
            spread, found = self._objective(Observation(prediction=prediction), "prediction")
            (of_prediction,) = torch.autograd.grad(spread, prediction)
            values, total = values | _detached(found), total + spread.detach()
        if not any(self._objective.has(source) for source in ("outputs", "features", "prediction")):
            return Evaluation(gradient, total, values, distances)
        scale = self._scale(len(images))
        for first in range(0, len(images), size):
            rows = slice(first, first + size)
            x = images[rows].detach().requires_grad_(True)
            share = len(x) / len(images)
            pulled, found = self._code_for(self._one_chunk, x)(x, targets[rows], means, pulls, of_prediction)
            (part,) = torch.autograd.grad(share * pulled * scale, x)
            gradient[rows] += part / scale
            for name, value in found.items():
                weighted = share * value.detach()
                values[name] = values.get(name, 0.0) + weighted
                total = total + self._objective.weights[name] * weighted
        return Evaluation(gradient, total, values, distances)

    def _one_chunk(
        self,
        images: Tensor,
        targets: Tensor,
        means: Tensor | None,
        pulls: Tensor | None,
        of_prediction: Tensor | None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """A scalar with a chunk's gradient, as though its images were the whole batch; and its terms of outputs."""
        seen, statistics = self._run(images)
        values: dict[str, Tensor] = {}
        total = images.new_zeros(())
        if self._objective.has("outputs"):
            total, values = self._objective(_with_targets(seen, targets, None), "outputs")
        if of_prediction is not None and seen.prediction is not None:
            total = total + (of_prediction * seen.prediction).sum()
        if statistics is not None and means is not None and pulls is not None:
            # The batch's variance is the mean of (x - batch mean)^2, in which the batch mean may be held fixed.
            mean, variance = statistics
            around = variance + (mean - means).square()
            total = total + (pulls[0] * mean).sum() + (pulls[1] * around).sum()
        return total, values

    @torch.no_grad()
    def _statistics(self, images: Tensor, size: int) -> Tensor:
        """Gather the statistics of all images chunk by chunk (the parallel form of the variance, Chan et al. 1979)."""
        counts, parts = [], []
        for first in range(0, len(images), size):
            chunk = images[first : first + size]
            statistics = self._run(chunk)[1]
            assert statistics is not None
            parts.append(statistics)
            counts.append(len(chunk))
        shares = images.new_tensor(counts)[:, None] / len(images)
        means, variances = torch.stack(parts, dim=1)
        mean = (shares * means).sum(0)
        return torch.stack((mean, (shares * (variances + (means - mean).square())).sum(0)))

    @torch.no_grad()
    def _prediction(self, images: Tensor, size: int) -> Tensor:
        """Gather the mean probabilities of all images, [K], chunk by chunk."""
        found = torch.zeros((), device=images.device)
        for first in range(0, len(images), size):
            chunk = images[first : first + size]
            prediction = self._run(chunk)[0].prediction
            assert prediction is not None
            found = found + len(chunk) / len(images) * prediction
        return found


def _with_targets(seen: Observation, targets: Tensor, distances: Tensor | None) -> Observation:
    """Add the objective's reference values to an observation (not by `replace`, which does not compile)."""
    return Observation(
        seen.images,
        targets,
        seen.teacher_logits,
        distances,
        seen.student_logits,
        seen.activations,
        seen.prediction,
    )


def _detached(values: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in values.items()}
