"""The objective's gradient for a synthesizer's requests: one for those with a student, one for those without."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from raydream.compute import ONE_GRAPH_S, choose_dtype, compiling_pays, counted, saved_by_compiling_s
from raydream.config import SynthesisConfig
from raydream.config.synthesis import ADVERSARIES
from raydream.losses.feature_statistics import FeatureDistances, SmoothedDistances
from raydream.losses.objective import Objective
from raydream.networks.observed import ObservedNetwork, frozen_copy, last_layer
from raydream.synthesis.gradient import PixelGradient
from raydream.synthesis.graphed import Graphs
from raydream.synthesis.memory import Chunks
from raydream.synthesis.stages import stages_of
from raydream.teachers.teacher import Teacher


class Engine:
    """Computes gradients and logits; keeps compiled code, graphs and working chunk sizes from request to request.

    Args:
        teacher: frozen and in eval mode; stays unchanged.
        config: the synthesis configuration; `coefficients` are read for the terms.
        terms: keys of `TERMS`; those in `ADVERSARIES` are left out where a request has no student.
        batches: number of batches in the whole run, which decides whether compiling pays off.

    Attributes:
        graphs: of whole updates, for synthesizers of pixels.
    """

    def __init__(self, teacher: Teacher, config: SynthesisConfig, terms: tuple[str, ...], batches: int) -> None:
        self._teacher, self._config, self._terms, self._batches = teacher, config, terms, batches
        self._gradients: dict[bool, PixelGradient] = {}
        self._used: PixelGradient | None = None
        self._student: nn.Module | None = None
        self._finished, self.graphs = Chunks(config.chunk_size), Graphs(teacher.device)
        self._network = self._observed()
        self._distances = self._compared()

    def gradient(self, student: nn.Module | None) -> PixelGradient:
        """Return the objective's gradient; one object serves all students, another all requests without a student.

        Args:
            student: to compete with; its weights are copied.
        """
        competes = any(getattr(self._config.coefficients, name) > 0 for name in self._terms if name in ADVERSARIES)
        if student is not None and competes:
            if self._student is None:
                self._student = frozen_copy(student).to(self._teacher.device)
            # Into the same network, as torch.compile would take another one for new code.
            self._student.load_state_dict(student.state_dict())
        self._used = self._gradient(student is not None and competes)
        return self._used

    def logits(self, images: Tensor) -> Tensor:
        """Return the teacher's logits for finished images, float32 [N,K], in chunks where memory is short.

        Args:
            images: uint8 [N,C,H,W].

        Raises:
            SynthesisError: a single image does not fit into memory.
        """
        said = self._finished.fitting(
            lambda size: [self._teacher.logits(part) for part in torch.split(images, size)],
            len(images),
            self._teacher.device,
        )
        return torch.cat(said)

    def take_notes(self) -> tuple[str, ...]:
        """Return the deviations in `logits` since the last call, one sentence each."""
        return self._finished.take_notes()

    def way(self) -> dict[str, object]:
        """Describe for a recipe how this process computes images without a competing student."""
        gradient = self._gradient(competes=False)
        found: dict[str, object] = {
            "compiled": gradient.compiled,
            "chunks": [gradient.chunks.size, self._finished.size],
        }
        if self.graphs.capture:
            found["graphed"] = True
        if gradient.in_one_graph:  # where the compiler may join operations that two graphs keep apart
            found["one_graph"] = True
        return found

    def _gradient(self, competes: bool) -> PixelGradient:
        if competes not in self._gradients:
            self._gradients[competes] = self._build(competes)
        return self._gradients[competes]

    def begin(self, average: Tensor | None) -> None:
        """Set the moving average of statistics that the next gradients compare; None: no average yet."""
        if isinstance(self._distances, SmoothedDistances):
            self._distances.begin(average)

    def compared(self) -> Tensor | None:
        """Return the moving average including the last gradient's statistics; None where no statistics are smoothed."""
        if self._used is None or self._used.compared is None or not isinstance(self._distances, SmoothedDistances):
            return None
        return self._used.compared.clone()

    def _build(self, competes: bool) -> PixelGradient:
        config, device = self._config, self._teacher.device
        objective = Objective([term for term in self._terms if term not in ADVERSARIES or competes], config)
        student, dtype = self._student if competes else None, choose_dtype(config.precision, device)
        networks = self._network, self._distances, student
        given = objective, *networks, self._teacher.normalization.from_canvas(), dtype
        bare = PixelGradient(*given, compiled=False, in_one_graph=False, chunk_size=None)
        saved_s = functools.cache(lambda: self._saved_by_compiling_s(bare))
        compiled = compiling_pays(config, saved_s)
        # Tried on CPUs alone: on a GPU the compiler decides between two graphs what to keep in memory.
        in_one_graph = compiled and device.type == "cpu" and saved_s() > ONE_GRAPH_S
        return PixelGradient(*given, compiled, in_one_graph, config.chunk_size)

    def _saved_by_compiling_s(self, gradient: Callable[[Tensor, Tensor], object]) -> float:
        """Seconds that compiling saves in all updates of the run, each stage at the size of its images.

        They count for the whole run, not for this process's share: in lockstep the number of generators must not affect
        the resulting bits.
        """
        device, (channels, *size) = self._teacher.device, self._teacher.config.input_shape
        target, seconds = torch.zeros(1, dtype=torch.long, device=device), 0.0
        for stage in stages_of(self._config, (size[0], size[1])):
            image = torch.zeros(1, channels, *stage.size, device=device)
            work = counted(lambda: gradient(image, target))  # noqa: B023
            saved_s = saved_by_compiling_s(work, self._config.batch_size, device, torch.get_num_threads())
            seconds += stage.iterations * saved_s
        return self._batches * seconds

    def _observed(self) -> ObservedNetwork:
        """A copy of the teacher's network that returns what the objective asks for, with and without a student."""
        network, objective = self._teacher.network, Objective(self._terms, self._config)
        before = last_layer(network, self._teacher.config.classes) if objective.of_activations() else None
        return ObservedNetwork(network, statistics=objective.has("features"), before=before)

    def _compared(self) -> FeatureDistances | None:
        """Return what compares the statistics of a pass with the running ones, where the objective has such a term."""
        if not self._network.layers:
            return None
        if not self._config.learns:
            return FeatureDistances(self._network)
        example = torch.zeros(1, *self._teacher.config.input_shape, device=self._teacher.device)
        return SmoothedDistances(self._network, self._config.generator.statistics_momentum, example)
