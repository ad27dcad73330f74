"""Checks that a batch larger than memory is made in chunks, with a note and the same gradient."""

import torch
from torch import Tensor

from raydream.device_check.steps import Figures, StepError
from raydream.device_check.subjects import find_subject
from raydream.synthesis.engine import Engine
from raydream.synthesis.gradient import PixelGradient

TENTH = 0.1
LARGEST_DIFFERENCE = 0.01
"""tolerance as a share of the gradients' norm: other batch sizes compute convolutions in other orders, perhaps in
TF32"""


def limited(device: str, network: str) -> Figures:
    """Evaluate one gradient with all memory, then with a tenth of the memory that it took besides network and images.

    Raises:
        StepError: it was not made in chunks, nothing was noted, or the gradient differs by more than rounding.
    """
    subject = find_subject(network, device)
    index = torch.cuda.current_device()
    config = subject.synthesis(precision="fp32")
    gradient = Engine(subject.teacher, config, config.terms, batches=1).gradient(None)
    images = torch.randn(
        subject.images, subject.teacher.config.input_shape[0], *subject.sizes[0], device=subject.device
    )
    targets = subject.targets().to(subject.device)
    held = torch.cuda.memory_allocated(index)
    whole, peak = _evaluated(gradient, images, targets)
    if notes := gradient.take_notes():
        raise StepError(f"all memory was too little: {'; '.join(notes)}", {"peak_mib": peak / 2**20})
    limit = held + 2 * whole.nbytes + TENTH * (peak - held)
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(limit / torch.cuda.get_device_properties(index).total_memory, index)
    chunked, limited_peak = _evaluated(gradient, images, targets)
    notes = gradient.take_notes()
    difference = float((chunked - whole).norm() / whole.norm())
    figures = {
        **subject.described,
        "peak_mib": peak / 2**20,
        "limit_mib": limit / 2**20,
        "limited_peak_mib": limited_peak / 2**20,
        "notes": list(notes),
        "halvings": len(notes),
        "relative_difference": difference,
    }
    if not notes:
        raise StepError("a tenth of the memory was enough, or no note says what was done about it", figures)
    if not difference < LARGEST_DIFFERENCE:
        raise StepError(f"in chunks, the gradient differs by {difference:.2g} of its norm", figures)
    return figures


def _evaluated(gradient: PixelGradient, images: Tensor, targets: Tensor) -> tuple[Tensor, int]:
    """Return the gradient, and the peak of allocated bytes."""
    torch.cuda.reset_peak_memory_stats()
    found = gradient(images, targets).gradient
    torch.cuda.synchronize()
    return found, torch.cuda.max_memory_allocated()
