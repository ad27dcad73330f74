"""Milliseconds of an update: the published loop, the engine, and the networks' passes alone."""

from collections.abc import Callable

import torch
from torch import Tensor

from raydream.compute import autocast, choose_dtype
from raydream.device_check.measuring import Loop, measure
from raydream.device_check.plain_loop import PlainLoop
from raydream.device_check.steps import Figures, StepError
from raydream.device_check.subjects import Subject, find_subject
from raydream.networks.observed import frozen_copy
from raydream.synthesis import SYNTHESIZERS, Request
from raydream.synthesis.stages import stages_of


def published(device: str, network: str) -> Figures:
    """Measure the loop as commonly published, in fp32."""
    subject = find_subject(network, device)
    config = subject.synthesis()
    (stage,) = stages_of(config, subject.sizes[-1])
    loop = PlainLoop(subject.teacher, None, config, stage, torch.float32)
    targets = subject.targets().to(subject.device)
    return _figures(subject, [_of(lambda on_update: loop.run(targets, 0, on_update), subject)])


def engine(device: str, network: str, compiled: bool = False) -> Figures:
    """Measure DeepInversion as a generator runs it, in the automatic precision.

    Raises:
        StepError: it ran uncompiled, or in chunks.
    """
    subject = find_subject(network, device)
    config = subject.synthesis(compile="on" if compiled else "off")
    synthesizer = SYNTHESIZERS[config.method](subject.teacher, config)
    notes: list[str] = []

    def loop(on_update: Callable[[], None]) -> None:
        made = synthesizer.synthesize(Request(subject.targets(), 0, on_progress=lambda share: on_update()))
        notes.extend(made.notes)

    measured = measure(loop, [subject.updates] * len(subject.sizes), subject.device)
    figures = _figures(subject, measured) | ({"compiler": _compiler()} if compiled else {})
    if notes:
        raise StepError(f"the engine did not run as asked: {'; '.join(notes)}", figures)
    return figures


def bare(device: str, network: str, compiled: bool = False, graphed: bool = False) -> Figures:
    """Measure the network's forward pass and its backward pass to the pixels, without any loss, optimizer or clipping.

    Args:
        compiled: whether to use torch.compile.
        graphed: whether to capture a CUDA graph and replay it.
    """
    subject = find_subject(network, device)
    measured = [_of(_passes(subject, size, compiled, graphed), subject) for size in subject.sizes]
    return _figures(subject, measured) | ({"compiler": _compiler()} if compiled else {})


def _passes(subject: Subject, size: tuple[int, int], compiled: bool, graphed: bool) -> Loop:
    """Build a loop of passes of one batch, in the engine's precision and memory layout."""
    network, dtype = frozen_copy(subject.teacher.network), choose_dtype("auto", subject.device)
    x = torch.randn(subject.images, subject.teacher.config.input_shape[0], *size, device=subject.device)
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_(True)

    def forward(images: Tensor) -> Tensor:
        with autocast(dtype, images.device):
            logits: Tensor = network(images)
        return logits.float().sum()

    passes = torch.compile(forward, dynamic=False) if compiled else forward

    def update() -> object:
        return torch.autograd.grad(passes(x), x)

    turn = _captured(update) if graphed else update

    def loop(on_update: Callable[[], None]) -> None:
        for _ in range(subject.updates):
            turn()
            on_update()

    return loop


def _captured(update: Callable[[], object]) -> Callable[[], object]:
    """Capture an update as a CUDA graph, after a warm-up on another stream, as torch requires."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            update()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = update()

    def replay() -> object:
        graph.replay()
        return kept  # whose memory the graph writes to

    return replay


def _of(loop: Loop, subject: Subject) -> Figures:
    (figures,) = measure(loop, [subject.updates], subject.device)
    return figures


def _figures(subject: Subject, measured: list[Figures]) -> Figures:
    sizes = {f"{height}x{width}": each for (height, width), each in zip(subject.sizes, measured, strict=True)}
    return {**sizes, **subject.described}


def _compiler() -> dict[str, int]:
    """Return torch.compile's counters in this process: graphs, breaks, and hits and misses of its caches."""
    counters = torch._dynamo.utils.counters
    caches = {
        name: count
        for group in ("inductor", "aot_autograd")
        for name, count in counters[group].items()
        if name.endswith(("cache_hit", "cache_miss", "cache_bypass"))
    }
    graphs = counters["stats"].get("unique_graphs", 0)
    return {"graphs": graphs, "graph_breaks": sum(counters["graph_break"].values()), **caches}
