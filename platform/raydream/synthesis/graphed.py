"""Updates as CUDA graphs: a GPU repeats all kernels of an update at one call, where each would cost a launch.

No test has met a GPU, so each graph is tried against the code that it was captured from before it is used.
"""

import contextlib
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from raydream.errors import RaydreamError, first_line
from raydream.synthesis.checkpoint import Checkpoint
from raydream.synthesis.compiled import compiled_alone
from raydream.synthesis.gradient import Evaluation, PixelGradient
from raydream.synthesis.stages import Stage
from raydream.synthesis.updates import Bounds, Updates
from raydream.synthesis.view import View

EPSILON = 1e-8
"""of Adam, as in torch"""
ALIKE = 0.05
"""how far a replayed update may be from the same one uncaptured, as a share of what it changes: kernels that add up in
another order move pixels whose gradient is almost 0"""

Update = Callable[[], Evaluation]
Capture = Callable[[Update], tuple[Callable[[], None], Evaluation]]
"""captures an update; returns what repeats it, and the tensors into which each repetition writes"""


class GraphError(RaydreamError):
    """An update that cannot be captured, or whose graph does something else."""


def cuda_graphs() -> Capture:
    """Return what captures CUDA graphs, which share one pool of memory, as only one of them runs at a time."""
    pool = torch.cuda.graph_pool_handle()

    def capture(update: Update) -> tuple[Callable[[], None], Evaluation]:
        graph = torch.cuda.CUDAGraph()
        # Other threads may use CUDA meanwhile. It returns what the same update took uncaptured before it begins.
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            evaluation = update()
        return graph.replay, evaluation

    return capture


class Graphs:
    """The captured updates of a process: one for each gradient, stage and number of images, for all its batches.

    Args:
        device: that computes.

    Attributes:
        capture: None where nothing is captured: on other devices than CUDA's, and once that has failed.
    """

    def __init__(self, device: torch.device) -> None:
        self.capture = cuda_graphs() if device.type == "cuda" else None
        self._made: dict[tuple[PixelGradient, Stage, int], GraphedUpdates] = {}

    def updates(
        self, pixels: Tensor, targets: Tensor, gradient: PixelGradient, stage: Stage, bounds: Bounds
    ) -> Updates:
        """Return what updates these pixels, or a copy of them; see `Updates`.

        Graphs are for compiled networks and batches that fit into memory. Where capturing fails, a note says so, and
        no more is captured.
        """
        plain = Updates(pixels, targets, gradient, stage, bounds)
        if self.capture is None or not _runs_whole(gradient, len(pixels)):
            return plain
        key = gradient, stage, len(pixels)
        try:
            if key not in self._made:
                self._made[key] = GraphedUpdates(pixels, targets, gradient, stage, bounds, self.capture)
        except Exception as error:  # whatever a failing capture raises
            self.capture = None
            gradient.chunks.note(f"no CUDA graphs, going on without ({type(error).__name__}: {first_line(error)})")
            return plain
        self._made[key].begin(pixels, targets)
        return self._made[key]


def _runs_whole(gradient: PixelGradient, count: int) -> bool:
    """Tell whether a gradient is compiled and takes so many images at once."""
    return gradient.compiled and (gradient.chunks.size or count) >= count


class GraphedUpdates(Updates):
    """Repeats one captured update, for all batches of a process in one stage.

    All that differs between updates lies in tensors on the device, which each call sets before it repeats the graph:
    the view, the learning rate and Adam's bias corrections. Adam is written out, so that the compiler makes one kernel
    of the gradient's way back through the view, both moments, the step and the clipping. Several updates per graph
    would gain little: the CPU has set the next update up long before the GPU has done the one before.

    Args:
        pixels, targets: of any batch of the right size, to capture with; they are copied.

    Raises:
        GraphError: the graph does not do what the captured code does.
        Exception: whatever a failing capture raises.
    """

    def __init__(
        self,
        pixels: Tensor,
        targets: Tensor,
        gradient: PixelGradient,
        stage: Stage,
        bounds: Bounds,
        capture: Capture,
    ) -> None:
        super().__init__(pixels.detach().clone(), targets.clone(), gradient, stage, bounds)
        self._first, self._second = torch.zeros_like(self.pixels), torch.zeros_like(self.pixels)
        self._given = torch.zeros(5, dtype=torch.float64, device=pixels.device)
        self._betas, self._done = stage.betas, 0
        self._seen, self._moved = compiled_alone(seen), compiled_alone(moved)
        self._replay, self._evaluation = self._tried(capture, stage.learning_rate)

    def begin(self, pixels: Tensor, targets: Tensor) -> None:
        """Begin a batch."""
        self.pixels.copy_(pixels)
        self._targets.copy_(targets)
        self._first.zero_()
        self._second.zero_()
        self._keep_moments(0)

    def restore(self, checkpoint: Checkpoint) -> None:
        """See `Updates.restore`."""
        super().restore(checkpoint)
        state = self.optimizer.state[self.pixels]
        self._first.copy_(state["exp_avg"])
        self._second.copy_(state["exp_avg_sq"])
        self._keep_moments(int(state["step"].item()))

    def __call__(self, view: View, learning_rate: float) -> Evaluation:
        """See `Updates.__call__`."""
        self._set(view, learning_rate)
        self._replay()
        self._keep_moments(self._done + 1)
        return self._evaluation

    def _keep_moments(self, done: int) -> None:
        """Let the optimizer, of which checkpoints are taken, hold the moments after so many updates."""
        self._done = done
        kept = {"step": torch.tensor(float(done)), "exp_avg": self._first, "exp_avg_sq": self._second}
        self.optimizer.state[self.pixels] = kept

    def _set(self, view: View, learning_rate: float) -> None:
        """Set what differs in the next update."""
        corrections = [1.0 - beta ** (self._done + 1) for beta in self._betas]
        given = [view.down, view.right, view.mirrored, learning_rate / corrections[0], math.sqrt(corrections[1])]
        sent = torch.tensor(given, dtype=torch.float64)
        # From pinned memory the copy does not wait for the device.
        self._given.copy_(sent.pin_memory() if self._given.is_cuda else sent, non_blocking=True)

    def _update(self, evaluate: Callable[[Tensor, Tensor], Evaluation]) -> Evaluation:
        evaluation = evaluate(self._seen(self.pixels, self._given), self._targets)
        with torch.no_grad():
            moments = self._first, self._second
            self._moved(self.pixels, evaluation.gradient, *moments, self._given, self._betas, self._bounds)
        return evaluation

    def _tried(self, capture: Capture, learning_rate: float) -> tuple[Callable[[], None], Evaluation]:
        """Capture, and compare one update that is repeated with one that is not, from the same pixels."""
        before = self.pixels.clone()
        self._set(View(1, -1, 1), learning_rate)
        with _beside(before.device):
            expected = self._update(self._gradient).total.item()
        if not _runs_whole(self._gradient, len(before)):
            raise GraphError("the networks run uncompiled or in chunks")
        change = self.pixels - before
        self.begin(before, self._targets)
        replay, evaluation = capture(lambda: self._update(self._gradient.at_once))
        self.begin(before, self._targets)
        replay()
        apart = (self.pixels - before - change).abs().mean().item()
        found, most = evaluation.total.item(), ALIKE * change.abs().mean().item()
        if not (abs(found - expected) <= ALIKE * abs(expected) and apart <= most):
            raise GraphError(f"a captured update is another one: {found:.4g} instead of {expected:.4g}")
        return replay, evaluation


@contextlib.contextmanager
def _beside(device: torch.device) -> Iterator[None]:
    """Compute on another stream of a GPU, as what precedes a capture has to be."""
    if device.type != "cuda":
        yield
        return
    usual, other = torch.cuda.current_stream(device), torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    other.wait_stream(usual)
    with torch.cuda.stream(other):
        yield
    usual.wait_stream(other)


def seen(pixels: Tensor, given: Tensor) -> Tensor:
    """Return the images as they are seen through the view in `given`."""
    return View(*given[:3].long().unbind())(pixels)


def moved(
    pixels: Tensor,
    gradient: Tensor,
    first: Tensor,
    second: Tensor,
    given: Tensor,
    betas: tuple[float, float],
    bounds: Bounds,
) -> None:
    """Move the pixels by Adam's step, in place.

    Args:
        gradient: with respect to the images as they were seen.
        first, second: Adam's moments.
        given: [5], down, right and mirrored of the view, the step's size and the root of the second bias correction.
    """
    back = View(*given[:3].long().unbind()).back(gradient)
    size, root = given[3:].to(pixels.dtype).unbind()
    first.lerp_(back, 1.0 - betas[0])
    second.mul_(betas[1]).addcmul_(back, back, value=1.0 - betas[1])
    pixels.sub_(size * first / (second.sqrt() / root + EPSILON))
    if bounds is not None:
        pixels.clamp_(*bounds)
