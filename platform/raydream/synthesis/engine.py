"""The objective's gradient for a synthesizer's requests: one for those with a student, one for those without."""

import torch
from torch import Tensor, nn

from raydream.compute import choose_dtype, compiling_pays, operations
from raydream.config import SynthesisConfig
from raydream.losses.dafl import FeatureNetwork
from raydream.losses.feature_statistics import ObservedNetwork, SmoothedNetwork, frozen_copy
from raydream.losses.objective import Objective
from raydream.synthesis.gradient import PixelGradient
from raydream.synthesis.stages import updates_of
from raydream.synthesis.synthesizer import Request
from raydream.teachers.teacher import Teacher


class Engine:
    """Keeps what was compiled, and the chunk size that memory allowed, from request to request.

    Args:
        teacher: frozen and in eval mode; is left as it is.
        config: of the synthesis; `coefficients` are read for the terms.
        terms: keys of `TERMS`; a competition is left out where a request has no student.
    """

    def __init__(self, teacher: Teacher, config: SynthesisConfig, terms: tuple[str, ...]) -> None:
        self._teacher, self._config, self._terms = teacher, config, terms
        self._gradients: dict[bool, PixelGradient] = {}
        self._student: nn.Module | None = None
        self._network = self._observed()

    def gradient(self, request: Request) -> PixelGradient:
        """Of this request's objective; the same for all requests with a student, and for all without."""
        competes = request.student is not None and "competition" in self._terms
        competes = competes and self._config.coefficients.competition > 0
        if request.student is not None and competes:
            if self._student is None:
                self._student = frozen_copy(request.student).to(self._teacher.device)
            # Into the same network, as torch.compile would take another one for new code.
            self._student.load_state_dict(request.student.state_dict())
        if competes not in self._gradients:
            self._gradients[competes] = self._build(len(request.targets), competes)
        return self._gradients[competes]

    def begin(self, average: Tensor | None) -> None:
        """Set the moving average of the statistics that the next gradients compare; None: there is none yet."""
        if isinstance(self._network, SmoothedNetwork):
            self._network.begin(average)

    def compared(self) -> Tensor | None:
        """The moving average with the statistics of the last gradient in it; None where no statistics are smoothed."""
        return self._network.compared.clone() if isinstance(self._network, SmoothedNetwork) else None

    def _build(self, count: int, competes: bool) -> PixelGradient:
        config, device = self._config, self._teacher.device
        objective = Objective([term for term in self._terms if term != "competition" or competes], config)
        student = self._student if competes else None
        shape = (count, *self._teacher.config.input_shape)
        updates = updates_of(config)
        networks = [self._teacher.network, *([student] if student is not None else [])]
        work = sum(operations(network, shape, updates, device) for network in networks)
        compiled = compiling_pays(config, work, device, torch.get_num_threads())
        return PixelGradient(
            objective,
            self._network,
            student,
            choose_dtype(config.precision, device),
            compiled,
            config.chunk_size,
        )

    def _observed(self) -> nn.Module:
        """A copy of the teacher's network that tells what the objective asks for, with and without a student."""
        network, objective = self._teacher.network, Objective(self._terms, self._config)
        if objective.has("features") and self._config.learns:
            example = torch.zeros(1, *self._teacher.config.input_shape, device=self._teacher.device)
            return SmoothedNetwork(network, self._config.generator.statistics_momentum, example)
        if objective.has("features"):
            return ObservedNetwork(network)
        if "activation" in objective.weights:
            return FeatureNetwork(network, self._teacher.config.classes)
        return frozen_copy(network)
